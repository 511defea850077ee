"""What cannot be read for now changes nothing in the running agent, and a later start may succeed."""

import os
from pathlib import Path

import pytest

from tests.support.agent.agent_process import connect, pomagent
from tests.support.agent.bastion import ANY, Bastion, on, say

NOT_YET = 75
INCLUDE = {"include": ["routes.d/*.toml"]}


def _included(directory: Path, port: int) -> Path:
    (directory / "routes.d").mkdir()
    file = directory / "routes.d" / "echo.toml"
    file.write_text(
        f'[[routes]]\nname = "echo"\nfrom = "echo.example.test:7000"\ngateway = "demo"\nlisten = "{on(port)}"\n'
    )
    return file


class TestIncludes:
    def test_renamed_directory_rejects_the_edit_and_a_removed_file_removes_its_route(
        self, bastion: Bastion, unused_port: int
    ) -> None:
        file = _included(bastion.directory, unused_port)
        agent = bastion.start({"banner": ANY}, agent=INCLUDE)
        with connect(unused_port) as client:
            assert say(client) == b"hello\n"
            file.parent.rename(bastion.directory / "elsewhere")
            (problem,) = agent.wait_for("config.rejected")["problems"]
            assert problem.endswith("/routes.d cannot be listed: No such file or directory")
            assert say(client) == b"hello\n"
        (bastion.directory / "elsewhere").rename(file.parent)
        file.unlink()
        agent.wait_for("config.applied", stopped=1)

    def test_start_without_an_included_directory_exits_75_and_succeeds_once_it_is_there(
        self, bastion: Bastion, unused_port: int
    ) -> None:
        bastion.save({}, agent=INCLUDE)
        done = pomagent("run", "--config", str(bastion.path), STATE_DIRECTORY=str(bastion.directory / "state"))
        assert done.returncode == NOT_YET, done.stderr
        assert pomagent("check", "--config", str(bastion.path)).returncode == 78
        _included(bastion.directory, unused_port)
        bastion.resume()
        with connect(unused_port) as client:
            assert say(client) == b"hello\n"

    def test_start_from_the_last_accepted_files_serves_the_routes_of_an_unreadable_directory(
        self, bastion: Bastion, unused_port: int
    ) -> None:
        file = _included(bastion.directory, unused_port)
        bastion.start({}, agent={**INCLUDE, "boot_from_last_good": True}).stop()
        file.parent.rename(bastion.directory / "elsewhere")
        bastion.resume().wait_for("config.rejected")
        with connect(unused_port) as client:
            assert say(client) == b"hello\n"


@pytest.mark.parametrize(
    ("replace", "problem"),
    [
        (os.mkfifo, "is not a regular file but a named pipe"),
        (lambda path: path.write_text("a." * 500_000 + "a = 1\n"), "has more than 400000"),
        (lambda path: path.write_text("a." * 100_000 + "a = 1\n"), "has a key with more than 32 parts"),
    ],
)
def test_hostile_main_file_is_reported_and_the_next_good_one_is_applied(replace, problem, bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY})
    draft = bastion.directory / "hostile"
    replace(draft)
    draft.replace(bastion.path)
    assert problem in agent.wait_for("config.rejected")["problems"][0]
    bastion.save({"echo": ANY, "banner": ANY})
    agent.wait_for("config.applied", started=1)
