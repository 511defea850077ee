"""What another local user cannot do to root's commands and to the agent, with two real users."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.gateway.facade import Gateway
from tests.gateway.waiting import scaled
from tests.support.agent import processes
from tests.support.agent.agent_process import clean_environment, pomagent
from tests.support.browser.visitor import Visitor, printed_address

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")

STRANGER = 65534
NOT_PERMITTED = 77
BECOME_STRANGER = f"""
import encodings.idna, http.client, os, socket, sys  # before the change of user: root may own the library
os.setgroups([])
os.setgid({STRANGER})
os.setuid({STRANGER})
"""
LISTENER = """
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    print("listening", flush=True)
    connection, _ = listener.accept()
    sys.stdout.buffer.write(connection.recv(65536))
"""
FORGER = """
print("ready", flush=True)
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
connection.request("GET", sys.stdin.read())
print(connection.getresponse().status)
"""
CONFIG = """
[credentials.people]
login = "browser"
[gateways.corp]
url = "https://127.0.0.1:1"
credential = "people"
[[routes]]
name = "redis"
from = "redis.example.com:6379"
listen = "127.0.0.1:0"
gateway = "corp"
"""


@pytest.fixture
def shared_directory() -> Iterator[Path]:
    """A directory like /tmp, in which both users can create files."""
    path = Path(tempfile.mkdtemp(prefix="pomagent-"))
    path.chmod(0o1777)
    yield path
    shutil.rmtree(path)


@contextmanager
def as_stranger(code: str, *arguments: object) -> Iterator[Any]:
    """Run Python code as the other user, and yield the process once it has printed its first line."""
    with processes.Process(
        [sys.executable, "-I", "-c", BECOME_STRANGER + code, *map(str, arguments)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, cwd="/", env=clean_environment(),
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


class TestControlSocketOfAnotherUser:
    @pytest.mark.parametrize(
        "command",
        [["status"], ["reload"], ["login", "--no-browser"], ["logout"], ["pause", "redis"], ["wait", "--timeout", "1"]],
        ids=lambda command: command[0],
    )
    def test_command_of_root_sends_nothing(self, shared_directory: Path, command: list[str]) -> None:
        config, socket_path = shared_directory / "agent.toml", shared_directory / "control.sock"
        config.write_text(CONFIG)
        with as_stranger(LISTENER, socket_path) as process:
            done = pomagent(
                *command, "--config", str(config), POMAGENT_STATUS__CONTROL_SOCKET=str(socket_path),
                STATE_DIRECTORY=str(shared_directory / "state"),
            )  # fmt: skip
            assert done.returncode == NOT_PERMITTED, done.stderr
            assert f"nothing was sent to {socket_path}: the program there runs as user {STRANGER}" in done.stderr
            received, _ = process.communicate(timeout=scaled(20))
        assert received == b""


class TestLogin:
    def test_callback_of_another_user_with_the_right_nonce_is_refused(self, gateway: Gateway, tmp_path: Path) -> None:
        errors, visitor = tmp_path / "login.err", Visitor(gateway, tmp_path)
        foreign = gateway.identity.mint("mallory@example.test")
        command = ["login", f"localhost:{gateway.port}", "--alternate-ca-path", str(gateway.ca_file), "--no-browser"]
        environment = clean_environment(STATE_DIRECTORY=str(tmp_path / "state"), HOME=str(tmp_path))
        with (
            errors.open("wb") as output,
            processes.Process(
                [sys.executable, "-m", "pomagent", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=output, env=environment,
            ) as login,
        ):  # fmt: skip
            url = printed_address(errors)
            redirect = urlsplit(parse_qs(urlsplit(url).query)["pomerium_redirect_uri"][0])
            with as_stranger(FORGER, redirect.port) as process:
                answer, _ = process.communicate(f"{redirect.path}?pomerium_jwt={foreign}".encode(), scaled(20))
            assert answer == b"403\n"
            assert f"refused a forged callback: user {STRANGER} brought the token" in errors.read_text()
            visitor.visit(url)
            assert login.wait(scaled(20)) == 0
        (stored,) = tmp_path.rglob("tokens/*.json")
        assert json.loads(stored.read_text())["token"] == gateway.identity.minted[-1]


class TestTokensDirectory:
    def test_link_of_another_user_is_refused_and_nothing_behind_it_changes(self, shared_directory: Path) -> None:
        behind, state = shared_directory / "behind", shared_directory / "state"
        behind.mkdir(mode=0o755)
        state.mkdir()
        (state / "tokens").symlink_to(behind)
        os.chown(state, STRANGER, STRANGER)
        os.chown(state / "tokens", STRANGER, STRANGER, follow_symlinks=False)
        config = shared_directory / "agent.toml"
        config.write_text(CONFIG)
        done = pomagent("logout", "--config", str(config), STATE_DIRECTORY=str(state))
        assert done.returncode != 0
        assert "symbolic link" in done.stderr
        assert behind.stat().st_mode & 0o777 == 0o755
        assert list(behind.iterdir()) == []
