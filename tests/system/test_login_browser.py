"""A login in a real Chromium, from the command through browser and callback to the first tunnel."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.gateway.facade import Gateway, destination
from tests.support.agent.agent_process import connect
from tests.support.agent.bastion import ANY, Bastion, say
from tests.support.agent.tcp_process import TcpProcess
from tests.support.browser.chromium import PROGRAM, Chromium
from tests.system.test_login import LOGIN_TABLES

pytestmark = pytest.mark.skipif(not shutil.which(PROGRAM), reason="Chromium is not installed")
ECHO = destination("echo")
TITLE = "Signed in – pomagent"


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    with Chromium(tmp_path) as browser:
        yield browser


def test_a_login_for_the_agent_opens_the_first_tunnel(bastion: Bastion, chromium: Chromium, gateway: Gateway) -> None:
    gateway.identity.authenticate_host = f"authenticate.example.test:{gateway.port}"
    agent = bastion.start({"echo": ANY}, **LOGIN_TABLES)
    done = agent.command("login", "demo", "--browser-cmd", chromium.command)
    assert done.returncode == 0, done.stderr
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    (page,) = wait_until(lambda: [page for page in chromium.pages() if page["title"] == TITLE])
    assert page["url"].startswith("http://127.0.0.1:")
    assert page["url"].count("/") == 3
    assert "jwt" not in page["url"]


def test_the_first_connection_of_tcp_starts_a_login(gateway: Gateway, chromium: Chromium, tmp_path: Path) -> None:
    flags = ["--pomerium-url", f"https://localhost:{gateway.port}", "--alternate-ca-path", str(gateway.ca_file)]
    home = {"STATE_DIRECTORY": str(tmp_path / "home")}
    with TcpProcess(tmp_path, ECHO, *flags, "--browser-cmd", chromium.command, **home) as tcp:
        clients = [connect(tcp.address[1], 60) for _ in range(3)]
        for client in clients:
            assert say(client) == b"hello\n"
            client.close()
    assert chromium.starts == 1
    assert gateway.identity.sign_ins == 1


def test_the_browser_shows_no_token_in_its_history(gateway: Gateway, chromium: Chromium, tmp_path: Path) -> None:
    """Wire §10 #11. History that a browser stores but does not show is out of a page's reach."""
    flags = ["--pomerium-url", f"https://localhost:{gateway.port}", "--alternate-ca-path", str(gateway.ca_file)]
    home = {"STATE_DIRECTORY": str(tmp_path / "home")}
    with TcpProcess(tmp_path, ECHO, *flags, "--browser-cmd", chromium.command, **home) as tcp:
        with connect(tcp.address[1], 60) as client:
            assert say(client) == b"hello\n"
    shown = wait_until(chromium.history, 30)
    assert any(url.startswith("http://127.0.0.1:") for url in shown)
    assert not any("jwt" in url for url in shown)
