"""What cannot be read for now changes nothing in the running agent, and a later start may succeed."""

import os
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.support.agent.agent_process import AgentProcess, connect, pomagent
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


def _state(agent: AgentProcess, name: str) -> tuple[str, str]:
    (route,) = [route for route in agent.status()["routes"] if route["name"] == name]
    return route["state"], str(route["reason"])


class TestCredentials:
    ROUTES = {"echo": {"listen": ANY}, "page": {"listen": ANY, "credential": "late", "warm": "tunnel"}}
    LATE = {"credentials.late": {"service_account_file": "late.jwt"}}

    def test_missing_token_costs_its_own_routes_and_heals_without_a_client(self, bastion: Bastion) -> None:
        agent = bastion.start(self.ROUTES, **self.LATE)
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"
        wait_until(lambda: _state(agent, "page")[0] == "unauthenticated")
        assert "late.jwt cannot be read: No such file or directory" in _state(agent, "page")[1]
        checked = pomagent("check", "--config", str(bastion.path))
        assert checked.returncode == 0
        assert "late.jwt cannot be read" in checked.stderr
        late = bastion.directory / "late.jwt"
        late.touch(0o600)
        late.write_text(bastion.gateway.token)
        wait_until(lambda: _state(agent, "page")[0] == "up")

    def test_token_that_disappears_while_the_agent_runs_stays_in_use(self, bastion: Bastion) -> None:
        agent = bastion.start({"echo": {"listen": ANY, "warm": "off"}})
        bastion.token_file.rename(bastion.directory / "elsewhere")
        assert "token cannot be read" in agent.wait_for("config.rejected")["problems"][0]
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"

    def test_edit_of_another_route_is_applied_while_a_token_is_missing_since_the_start(self, bastion: Bastion) -> None:
        agent = bastion.start(self.ROUTES, **self.LATE)
        bastion.save({**self.ROUTES, "banner": ANY}, **self.LATE)
        agent.wait_for("config.applied", started=1)
        bastion.save(
            {**self.ROUTES, "banner": ANY}, **{**self.LATE, "credentials.never": self.LATE["credentials.late"]}
        )
        assert "credentials.never" in str(agent.wait_for("config.rejected")["problems"])


class TestCertificates:
    def test_half_written_ca_is_never_replaced_by_the_trust_of_the_system(self, bastion: Bastion) -> None:
        ca = bastion.directory / "ca.pem"
        whole = bastion.gateway.ca_file.read_bytes()
        ca.write_bytes(whole[: len(whole) // 2])
        edge = {"url": bastion.gateway.url, "connect_to": bastion.gateway.connect_to, "ca_file": "ca.pem"}
        agent = bastion.start({"echo": {"listen": ANY, "warm": "tunnel"}}, **{"gateways.demo": edge})
        wait_until(lambda: _state(agent, "echo")[0] == "down")
        assert "ca.pem holds a" in _state(agent, "echo")[1]
        ca.write_bytes(whole)
        wait_until(lambda: _state(agent, "echo")[0] == "up")
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"
