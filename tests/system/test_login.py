"""Logging in with a browser: by command, by the first connection of ``pomagent tcp``, and for the running agent."""

import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import wait_until
from tests.gateway.agent_toml import write_token
from tests.gateway.facade import Gateway, destination
from tests.gateway.ports import LOOPBACK, unused_port
from tests.gateway.waiting import scaled
from tests.support.agent import processes
from tests.support.agent.agent_process import AgentProcess, clean_environment, connect, pomagent, read_to_end
from tests.support.agent.bastion import ANY, Bastion, say
from tests.support.agent.tcp_process import TcpProcess
from tests.support.browser.visitor import SIGN_IN, Visitor, printed_address

CANNOT_SERVE, USAGE = 69, 2
ECHO = destination("echo")
SIGNED_IN = [302, 302, 404]
"""Statuses of the sign-in page, the gateway's callback and our own page (see ``page.SIGNED_IN_STATUS``)."""
LOGIN_TABLES: dict[str, dict[str, Any]] = {
    "credentials.people": {"login": "browser"}, "gateways.demo": {"credential": "people"},
}  # fmt: skip


@pytest.fixture
def visitor(gateway: Gateway, tmp_path: Path) -> Visitor:
    return Visitor(gateway, tmp_path)


class Home:
    """The tokens of one user, and the gateway's name on the user's command lines."""

    def __init__(self, gateway: Gateway, directory: Path) -> None:
        self._gateway = gateway
        self.directory = directory
        self.environment = {"STATE_DIRECTORY": str(directory / "home")}
        self.address = f"localhost:{gateway.port}"  # the certificate has this name, and it resolves

    @property
    def trust(self) -> list[str]:
        return ["--alternate-ca-path", str(self._gateway.ca_file)]

    @property
    def files(self) -> list[Path]:
        return sorted((self.directory / "home/tokens").glob("*.json"))

    @property
    def tokens(self) -> list[str]:
        return [json.loads(file.read_text())["token"] for file in self.files]

    def run(self, command: str, *arguments: str, address: str = "") -> Any:
        return pomagent(command, address or self.address, *self.trust, *arguments, **self.environment)

    def tcp(self, *arguments: str, route: str = "echo") -> TcpProcess:
        url = ["--pomerium-url", f"https://{self.address}"]
        return TcpProcess(
            self.directory, destination(route), *url, *self.trust, *arguments, **self.environment
        )  # fmt: skip

    @property
    def errors(self) -> Path:
        """File with the standard error of ``tcp``."""
        return self.directory / "tcp.err"


@pytest.fixture
def home(gateway: Gateway, tmp_path: Path) -> Home:
    return Home(gateway, tmp_path)


@contextmanager
def login_process(home: Home, *arguments: str) -> Iterator[tuple[processes.Process, Path]]:
    """Run ``pomagent login`` until it waits. The file has its standard error."""
    errors = home.directory / "login.err"
    command = [sys.executable, "-m", "pomagent", "login", home.address, *home.trust, *arguments]
    with errors.open("wb") as output:
        process = processes.Process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output,
            env=clean_environment(**home.environment),
        )  # fmt: skip
    try:
        yield process, errors
    finally:
        process.kill()
        process.communicate()


def callback_of(url: str) -> tuple[int, str]:
    """Return port and path of a login's redirect, from its sign-in address."""
    parts = urlsplit(parse_qs(urlsplit(url).query)["pomerium_redirect_uri"][0])
    assert parts.hostname == LOOPBACK
    assert parts.port
    return parts.port, parts.path


def get(port: int, target: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=scaled(10))
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


# --- the command ---


def test_a_login_opens_a_browser_and_stores_the_token_for_this_user_only(
    home: Home, visitor: Visitor, gateway: Gateway
) -> None:
    done = home.run("login", "--browser-cmd", visitor.command)
    assert (done.returncode, done.stdout) == (0, f"logged in at {home.address}\n")
    assert visitor.starts == 1
    assert home.tokens == gateway.identity.minted
    (file,) = home.files
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)
    assert home.tokens[0] not in done.stdout + done.stderr


def test_whoami_shows_identity_expiry_and_listed_routes(home: Home, visitor: Visitor, gateway: Gateway) -> None:
    gateway.identity.list_route("orders-db", "tcp+https://orders.example.test:5432")
    gateway.identity.list_route("wiki", "https://wiki.example.test", "http")
    home.run("login", "--browser-cmd", visitor.command)
    lines = home.run("whoami").stdout.splitlines()
    assert "identity   alice@example.test" in lines
    assert "routes     2 listed: orders-db, wiki" in lines
    assert "until      unknown: the token has no expiry" in lines
    document = json.loads(home.run("whoami", "--json").stdout)
    assert (document["identity"], document["expires_at"]) == ("alice@example.test", None)


def test_a_cached_token_is_checked_at_a_page_that_needs_a_login(home: Home, visitor: Visitor, gateway: Gateway) -> None:
    """Wire §10 #9: /healthz answers without a login."""
    home.run("login", "--browser-cmd", visitor.command)
    gateway.authorizer.revoke(gateway.identity.minted[0])
    done = home.run("whoami")
    assert done.returncode == CANNOT_SERVE
    assert "not logged in" in done.stderr
    assert f"pomagent login {home.address}" in done.stderr


def test_a_gateway_is_recognised_in_any_spelling(home: Home, visitor: Visitor) -> None:
    """Wire §10 #8: tunnels, login and routes share one key."""
    home.run("login", "--browser-cmd", visitor.command, address=f"https://LOCALHOST:{home.address[10:]}/path?q")
    for command in ("whoami", "routes"):
        assert home.run(command).returncode == 0
        assert home.run(command, address=f"https://{home.address}/").returncode == 0
    with home.tcp("--browser-cmd", visitor.command) as tcp, connect(tcp.address[1]) as client:
        assert say(client) == b"hello\n"
    assert visitor.starts == 1


def test_the_address_is_printed_and_a_pasted_one_accepted(home: Home, visitor: Visitor, gateway: Gateway) -> None:
    with login_process(home, "--no-browser") as (process, errors):
        pasted = visitor.sign_in_elsewhere(printed_address(errors))
        assert process.stdin
        process.stdin.write(b"http://127.0.0.1:1/cb/wrong?pomerium_jwt=x\n")
        process.stdin.flush()
        wait_until(lambda: "paste another address" in errors.read_text())
        output, _ = process.communicate(f"  {pasted}\n".encode(), scaled(20))
        assert (process.returncode, output.decode()) == (0, f"logged in at {home.address}\n")
    assert home.tokens == gateway.identity.minted


def test_a_fixed_callback_port_is_used(home: Home, visitor: Visitor) -> None:
    port = unused_port()
    with login_process(home, "--no-browser", "--callback-port", str(port)) as (process, errors):
        url = printed_address(errors)
        assert callback_of(url)[0] == port
        assert visitor.visit(url) == SIGNED_IN
        assert process.wait(scaled(20)) == 0


def test_a_taken_callback_port_is_reported(home: Home) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        done = home.run("login", "--no-browser", "--callback-port", str(taken.getsockname()[1]))
    assert done.returncode == CANNOT_SERVE
    assert "cannot listen" in done.stderr


def test_a_forged_callback_is_refused_and_reported_and_the_login_goes_on(
    home: Home, visitor: Visitor, gateway: Gateway
) -> None:
    """Wire §10 #11."""
    stranger = gateway.identity.mint("mallory@example.test")
    with login_process(home, "--no-browser") as (process, errors):
        url = printed_address(errors)
        port, path = callback_of(url)
        for forged in ("/", "/cb/", f"{path}x", f"/cb/{'A' * 43}"):
            status, body = get(port, f"{forged}?pomerium_jwt={stranger}")
            assert status == 403
            assert stranger not in body
        assert visitor.visit(url) == SIGNED_IN
        assert process.wait(scaled(20)) == 0
        assert errors.read_text().count("refused a forged callback") == 4
        assert stranger not in errors.read_text()
    assert home.tokens == [gateway.identity.minted[-1]]


def test_icon_requests_and_idle_connections_do_not_disturb_a_login(home: Home, visitor: Visitor) -> None:
    with login_process(home, "--no-browser") as (process, errors):
        url = printed_address(errors)
        port, path = callback_of(url)
        silent = [socket.create_connection((LOOPBACK, port)) for _ in range(40)]
        assert get(port, "/favicon.ico")[0] == 404
        assert get(port, path)[0] == 404
        assert visitor.visit(url) == SIGNED_IN
        assert process.wait(scaled(20)) == 0
        for connection in silent:
            connection.close()
        assert "forged" not in errors.read_text()


def test_an_interrupted_login_reports_its_cancellation(home: Home) -> None:
    with login_process(home, "--no-browser") as (process, errors):
        printed_address(errors)
        process.send_signal(signal.SIGINT)
        assert process.wait(scaled(20)) == CANNOT_SERVE
        assert errors.read_text().endswith("the login was cancelled\n")
    assert home.files == []


def test_a_missing_browser_is_reported(home: Home) -> None:
    done = home.run("login", "--browser-cmd", "/nowhere/browser")
    assert done.returncode == CANNOT_SERVE
    assert "/nowhere/browser cannot be started" in done.stderr


def test_a_failed_browser_is_reported_and_the_printed_address_works(home: Home, visitor: Visitor) -> None:
    with login_process(home, "--browser-cmd", "false") as (process, errors):
        wait_until(lambda: "failed with exit code 1" in errors.read_text())
        assert visitor.visit(printed_address(errors)) == SIGNED_IN
        assert process.wait(scaled(20)) == 0


@pytest.mark.parametrize("command", ["login", "whoami", "routes", "logout"])
@pytest.mark.parametrize("name", ["http://localhost:1", "user@localhost:1", "corp"])
def test_an_argument_that_is_no_gateway_is_a_usage_error(home: Home, command: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text("[agent]\nallow_empty = true\n")
    done = pomagent(command, name, "--config", str(tmp_path / "agent.toml"), **home.environment)
    assert done.returncode == USAGE
    assert "Traceback" not in done.stderr


# --- the first connection of ``pomagent tcp`` ---


def test_the_first_refused_connection_starts_a_login_and_waits_for_it(
    home: Home, visitor: Visitor, gateway: Gateway
) -> None:
    """Wire §10 #4 and #6: a 401 starts a login, and the refused connection is served afterwards."""
    with home.tcp("--browser-cmd", visitor.command) as tcp:
        assert gateway.identity.requests == []
        with connect(tcp.address[1]) as client:
            assert say(client) == b"hello\n"
    assert visitor.starts == 1
    assert home.tokens == gateway.identity.minted


def test_concurrent_connections_open_one_browser(home: Home, visitor: Visitor, gateway: Gateway) -> None:
    """Wire §10 #3."""
    gateway.identity.asks = True  # the sign-in form waits for its button
    with home.tcp("--browser-cmd", visitor.command) as tcp:
        clients = [connect(tcp.address[1]) for _ in range(5)]
        for client in clients:
            client.sendall(b"hello\n")
        url = printed_address(home.errors)
        wait_until(lambda: len(gateway.authorizer.checks_for(ECHO)) == 5 and gateway.identity.sign_ins == 1)
        gateway.identity.asks = False
        visitor.visit(url)
        for client in clients:
            assert client.recv(6) == b"hello\n"
            client.close()
    assert visitor.starts == 1
    assert len(gateway.identity.minted) == 1


def test_a_client_that_disconnects_leaves_the_login_to_the_next_one(
    home: Home, visitor: Visitor, gateway: Gateway
) -> None:
    """Wire §10 #4."""
    gateway.identity.asks = True
    with home.tcp("--browser-cmd", visitor.command) as tcp:
        with connect(tcp.address[1]) as client:
            client.sendall(b"hello\n")
            url = printed_address(home.errors)
            wait_until(lambda: gateway.identity.sign_ins == 1)
        gateway.identity.asks = False
        visitor.visit(url)
        with connect(tcp.address[1]) as client:
            assert say(client) == b"hello\n"
    assert visitor.starts == 1
    assert home.tokens == gateway.identity.minted


def test_concurrent_processes_open_one_browser(home: Home, visitor: Visitor, gateway: Gateway, tmp_path: Path) -> None:
    gateway.identity.asks = True
    (tmp_path / "other").mkdir()
    flags = ["--pomerium-url", f"https://{home.address}", *home.trust, "--browser-cmd", visitor.command]
    with (
        home.tcp("--browser-cmd", visitor.command) as first,
        TcpProcess(tmp_path / "other", ECHO, *flags, **home.environment) as second,
        connect(first.address[1]) as one,
    ):
        url = printed_address(home.errors)
        with connect(second.address[1]) as two:
            wait_until(lambda: "tunnel.failed" in second.errors and gateway.identity.sign_ins == 1)
            gateway.identity.asks = False
            visitor.visit(url)
            assert (say(one), say(two)) == (b"hello\n", b"hello\n")
    assert visitor.starts == 1


def test_a_cached_token_is_used_before_any_browser(home: Home, visitor: Visitor) -> None:
    for _ in range(2):
        with home.tcp("--browser-cmd", visitor.command) as tcp, connect(tcp.address[1]) as client:
            assert say(client) == b"hello\n"
    assert visitor.starts == 1


def test_an_expired_session_is_renewed_within_the_same_connection(
    home: Home, visitor: Visitor, gateway: Gateway
) -> None:
    home.run("login", "--browser-cmd", visitor.command)
    gateway.authorizer.revoke(home.tokens[0])
    with home.tcp("--browser-cmd", visitor.command) as tcp, connect(tcp.address[1]) as client:
        assert say(client) == b"hello\n"
    assert visitor.starts == 2
    assert home.tokens == gateway.identity.minted[1:]


def test_a_login_at_one_name_of_a_cluster_serves_its_other_names(
    home: Home, visitor: Visitor, gateway: Gateway, tmp_path: Path
) -> None:
    """One login per cluster and identity provider, and no browser for the second name."""
    gateway.identity.authenticate_host = f"authenticate.example.test:{gateway.port}"
    toml = tmp_path / "agent.toml"
    for name in ("one", "two"):
        toml.write_text(
            f'[agent]\nallow_empty = true\n[gateways.{name}]\nurl = "https://{name}.example.test:{gateway.port}"\n'
            f'connect_to = "{gateway.connect_to}"\nca_file = "{gateway.ca_file}"\n'
        )
        if name == "one":
            done = pomagent(
                "login", "one", "--config", str(toml), "--browser-cmd", visitor.command, **home.environment
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
    done = pomagent("whoami", "two", "--config", str(toml), **home.environment)
    assert "identity   alice@example.test" in done.stdout.splitlines(), done.stderr
    assert visitor.starts == 1


IN_FRONT = {
    "maintenance": (302, {"location": "https://down.example.com/"}),
    "another name": (308, {"location": "https://new.example.com/"}),
    "a redirect to nowhere": (307, {"x-balancer": "1"}),
    "a balancer's login": (401, {"www-authenticate": "Basic"}),
    "a firewall": (403, {"content-type": "text/plain"}),
}


@pytest.mark.parametrize("trouble", ["edge down", "404", "408", "429", "503", "destination down", *IN_FRONT])
def test_only_a_refusal_of_the_login_removes_a_token(
    home: Home, visitor: Visitor, gateway: Gateway, trouble: str
) -> None:
    """Wire §10 #2."""
    home.run("login", "--browser-cmd", visitor.command)
    before = home.tokens
    if trouble == "edge down":
        gateway.edge.stop()
    elif trouble in IN_FRONT:
        status, headers = IN_FRONT[trouble]
        gateway.authorizer.refuse(status, headers, "who?")
        gateway.identity.refuse(status, "who?", headers.get("location", ""))
    elif trouble != "destination down":
        gateway.authorizer.refuse(int(trouble))
    route = "down" if trouble == "destination down" else "echo"
    with home.tcp("--browser-cmd", visitor.command, route=route) as tcp:
        with pytest.raises(ConnectionResetError), connect(tcp.address[1]) as client:
            read_to_end(client)
        assert home.tokens == before
        if trouble != "destination down":
            gateway.recover()
            with connect(tcp.address[1]) as client:
                assert say(client) == b"hello\n"
    assert home.tokens == before
    assert visitor.starts == 1


@pytest.mark.parametrize("trouble", IN_FRONT)
def test_whoami_names_what_is_in_front_and_keeps_the_token(
    home: Home, visitor: Visitor, gateway: Gateway, trouble: str
) -> None:
    home.run("login", "--browser-cmd", visitor.command)
    before = home.tokens
    status, headers = IN_FRONT[trouble]
    gateway.identity.refuse(status, "who?", headers.get("location", ""))
    for command in ("whoami", "login"):
        done = home.run(command)
        assert "something in front of the gateway" in done.stderr
    assert home.tokens == before


@pytest.mark.parametrize("during", ["login", "session"])
def test_an_interrupt_removes_no_token(home: Home, visitor: Visitor, gateway: Gateway, during: str) -> None:
    """Wire §10 #2: Ctrl-C during a login, and in the middle of a session."""
    home.run("login", "--browser-cmd", visitor.command)
    before = home.tokens
    if during == "login":
        gateway.authorizer.refuse(401)
    with home.tcp("--no-browser") as tcp, connect(tcp.address[1]) as client:
        client.sendall(b"hello\n")
        if during == "session":
            assert client.recv(6) == b"hello\n"
        else:
            wait_until(lambda: "tunnel.failed" in tcp.errors)
        tcp.process.send_signal(signal.SIGINT)
        assert tcp.process.wait(scaled(20)) == 0
    assert home.tokens == before


def test_a_service_account_token_is_used_alone_and_never_cached(
    home: Home, visitor: Visitor, gateway: Gateway, tmp_path: Path
) -> None:
    """Wire §10 #7."""
    home.run("login", "--browser-cmd", visitor.command)
    before = home.tokens
    write_token(tmp_path / "token", gateway.token)
    with home.tcp("--service-account-file", str(tmp_path / "token")) as tcp, connect(tcp.address[1]) as client:
        assert say(client) == b"hello\n"
    assert {check.token for check in gateway.authorizer.checks_for(ECHO)} == {gateway.token}
    assert home.tokens == before
    write_token(tmp_path / "token", "eyJ.no.good")
    with home.tcp("--service-account-file", str(tmp_path / "token")) as tcp:
        with pytest.raises(ConnectionResetError), connect(tcp.address[1]) as client:
            read_to_end(client)
    assert visitor.starts == 1


def test_a_refused_fresh_login_is_final(home: Home, visitor: Visitor, gateway: Gateway) -> None:
    """Wire §10 #19 and §2.2: with a route's own identity provider, another login would not help."""
    gateway.authorizer.refuse(401)
    with home.tcp("--browser-cmd", visitor.command) as tcp:
        for _ in range(3):
            with pytest.raises(ConnectionResetError), connect(tcp.address[1]) as client:
                read_to_end(client)
        wait_until(lambda: "another login cannot help" in tcp.errors)
        gateway.authorizer.behave()
        with connect(tcp.address[1]) as client:
            assert say(client) == b"hello\n"
    assert visitor.starts == 1


def test_standard_input_and_output_wait_for_the_login(home: Home, visitor: Visitor) -> None:
    url = ["--pomerium-url", f"https://{home.address}", *home.trust, "--browser-cmd", visitor.command]
    done = pomagent("tcp", ECHO, "--listen", "-", *url, stdin=b"hello\n", **home.environment)
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert visitor.starts == 1


def test_a_failed_login_of_a_single_route_is_reported(home: Home, gateway: Gateway) -> None:
    url = ["--pomerium-url", f"https://{home.address}", *home.trust, "--browser-cmd", "/nowhere/browser"]
    done = pomagent("tcp", ECHO, "--listen", "-", *url, **home.environment)
    assert done.returncode == CANNOT_SERVE
    assert "install or choose another browser; /nowhere/browser cannot be started" in done.stderr


def test_a_public_route_needs_no_login(home: Home, visitor: Visitor) -> None:
    with home.tcp("--browser-cmd", visitor.command, route="public") as tcp, connect(tcp.address[1]) as client:
        assert say(client) == b"hello\n"
    assert visitor.starts == 0


def test_the_address_is_printed_without_a_browser(home: Home, visitor: Visitor) -> None:
    with home.tcp("--no-browser") as tcp, connect(tcp.address[1]) as client:
        client.sendall(b"hello\n")
        visitor.visit(printed_address(home.errors))
        assert client.recv(6) == b"hello\n"
        assert len(tcp.output.splitlines()) == 1


def test_a_forged_callback_is_logged(home: Home, gateway: Gateway, visitor: Visitor) -> None:
    with home.tcp("--no-browser") as tcp, connect(tcp.address[1]) as client:
        url = printed_address(home.errors)
        port, _ = callback_of(url)
        assert get(port, f"/cb/forged?pomerium_jwt={gateway.identity.mint('mallory@example.test')}")[0] == 403
        wait_until(lambda: '"callback.refused"' in tcp.errors)
        visitor.visit(url)
        assert say(client) == b"hello\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_a_waiting_login(home: Home, number: signal.Signals) -> None:
    with home.tcp("--no-browser") as tcp, connect(tcp.address[1]):
        printed_address(home.errors)
        tcp.process.send_signal(number)
        assert tcp.process.wait(scaled(10)) == 0


# --- the running agent ---


@pytest.fixture
def agent(bastion: Bastion) -> AgentProcess:
    """An agent with two routes that wait for one login."""
    return bastion.start({"echo": ANY, "page": ANY}, defaults={"warm": "tunnel"}, **LOGIN_TABLES)


def states(agent: AgentProcess) -> dict[str, tuple[str, str]]:
    return {route["name"]: (route["state"], route["reason"]) for route in agent.status()["routes"]}


def test_a_route_that_waits_for_a_login_names_the_login_command(agent: AgentProcess, visitor: Visitor) -> None:
    wait_until(lambda: {state for state, _ in states(agent).values()} == {"unauthenticated"})
    assert all("pomagent login demo" in reason for _, reason in states(agent).values())
    assert visitor.starts == 0


def test_a_login_is_passed_to_the_agent_and_both_routes_recover_at_once(
    agent: AgentProcess, bastion: Bastion, visitor: Visitor, gateway: Gateway
) -> None:
    wait_until(lambda: {state for state, _ in states(agent).values()} == {"unauthenticated"})
    done = agent.command("login", "demo", "--browser-cmd", visitor.command)
    assert done.returncode == 0, done.stderr
    assert "given to the agent: echo, page" in done.stdout
    wait_until(lambda: {state for state, _ in states(agent).values()} == {"up"}, timeout=3)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    changed = agent.wait_for("control.changed", command="token")
    assert changed["uid"] == os.geteuid()
    (token,) = gateway.identity.minted
    assert token not in agent.log + done.stdout + done.stderr
    kept = list((bastion.directory / "state/logins").rglob("*.json"))
    assert [stat.S_IMODE(file.stat().st_mode) for file in kept] == [0o600]


def test_a_gateway_is_accepted_by_its_address_and_a_probe_presents_the_login(
    agent: AgentProcess, visitor: Visitor, gateway: Gateway
) -> None:
    before = agent.command("probe", "echo")
    assert before.returncode == CANNOT_SERVE
    assert "run: pomagent login demo" in before.stdout
    done = agent.command("login", gateway.url, "--browser-cmd", visitor.command)
    assert "given to the agent: echo, page" in done.stdout, done.stderr
    probed = agent.command("probe", "echo")
    assert probed.returncode == 0, probed.stdout


def test_the_agent_stores_a_login_for_its_next_start(agent: AgentProcess, bastion: Bastion, visitor: Visitor) -> None:
    agent.command("login", "--browser-cmd", visitor.command)
    agent.stop()
    again = bastion.resume()
    with connect(again.port("echo")) as client:
        assert say(client) == b"hello\n"
    assert not again.events("tunnel.failed")


def test_a_revoked_login_requires_another_and_the_agent_opens_no_browser(
    agent: AgentProcess, visitor: Visitor, gateway: Gateway
) -> None:
    agent.command("login", "--browser-cmd", visitor.command)
    wait_until(lambda: {state for state, _ in states(agent).values()} == {"up"})
    gateway.authorizer.revoke(gateway.identity.minted[0])
    with connect(agent.port("page")) as client:  # a warm tunnel still serves, the next one is refused
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    wait_until(lambda: states(agent)["page"][0] == "unauthenticated")
    assert "pomagent login demo" in states(agent)["page"][1]
    agent.command("login", "--browser-cmd", visitor.command)
    wait_until(lambda: states(agent)["page"][0] == "up")
    assert visitor.starts == 2


def test_a_logout_removes_the_agents_token(agent: AgentProcess, visitor: Visitor) -> None:
    agent.command("login", "--browser-cmd", visitor.command)
    wait_until(lambda: {state for state, _ in states(agent).values()} == {"up"})
    done = agent.command("logout")
    assert done.returncode == 0, done.stderr
    assert "forgotten by the agent: echo, page" in done.stdout
    wait_until(lambda: {state for state, _ in states(agent).values()} == {"unauthenticated"})


def test_a_login_without_an_agent_is_reported(agent: AgentProcess, visitor: Visitor) -> None:
    agent.stop()
    done = agent.command("login", "--browser-cmd", visitor.command)
    assert done.returncode == CANNOT_SERVE
    assert "only this user's commands have the token" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")
def test_a_token_from_another_user_is_refused(agent: AgentProcess, bastion: Bastion, gateway: Gateway) -> None:
    token = gateway.identity.mint("mallory@example.test")
    assert states(agent)  # the control socket answers
    answer = _post_as_another_user(bastion.directory / "control.sock", {"gateway": "demo", "token": token})
    assert answer.split()[1:2] == ["403"], answer
    assert agent.wait_for("control.refused")["uid"] == 65534
    wait_until(lambda: {state for state, _ in states(agent).values()} == {"unauthenticated"})
    assert token not in agent.log


def _post_as_another_user(control_socket: Path, body: dict[str, str]) -> str:
    script = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); body = sys.stdin.buffer.read()
s.sendall(b"POST /token HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n")
s.sendall(b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
print(s.makefile().read())
"""
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    with tempfile.TemporaryDirectory() as public:  # pytest's own directories are closed to others
        Path(public).chmod(0o755)
        socket_path = Path(public, "control.sock")
        os.link(control_socket, socket_path)
        socket_path.chmod(0o666)
        done = processes.run(
            [python, "-c", script, str(socket_path)], input=json.dumps(body), user=65534, group=65534, extra_groups=[],
            check=False, capture_output=True, text=True, env=clean_environment(), cwd="/",
        )  # fmt: skip
        return done.stdout + done.stderr


# --- routes ---


@pytest.fixture
def listed(gateway: Gateway) -> Callable[[], None]:
    """Lets the portal list routes with unusable and duplicate names."""

    def fill() -> None:
        gateway.identity.list_route("Orders DB", "tcp+https://orders.example.test:5432", description='the "big" one')
        gateway.identity.list_route("Orders DB", "tcp+https://orders-2.example.test:5432")
        gateway.identity.list_route("…", "tcp+https://echo.example.test:22")
        gateway.identity.list_route("bastion", f"tcp+https://localhost:{gateway.port}/db.example.test:5432")
        gateway.identity.list_route("wiki", "https://wiki.example.test", "http")
        gateway.identity.list_route("dns", "udp+https://dns.example.test:53", "udp")
        gateway.identity.list_route("all", "tcp+https://*.db.example.test:5432")

    return fill


def test_routes_are_printed_as_a_table_or_as_json(home: Home, visitor: Visitor, listed: Callable[[], None]) -> None:
    listed()
    home.run("login", "--browser-cmd", visitor.command)
    table = home.run("routes").stdout.splitlines()
    assert table[0].split() == ["NAME", "TYPE", "FROM", "DESCRIPTION"]
    assert len(table) == 8
    document = json.loads(home.run("routes", "--json").stdout)
    assert document["routes"][0] == {
        "name": "Orders DB", "type": "tcp", "url": "tcp+https://orders.example.test:5432",
        "description": 'the "big" one',
    }  # fmt: skip


def test_routes_as_toml_pass_the_check(
    home: Home, visitor: Visitor, listed: Callable[[], None], tmp_path: Path
) -> None:
    listed()
    home.run("login", "--browser-cmd", visitor.command)
    done = home.run("routes", "--toml")
    (tmp_path / "agent.toml").write_text(done.stdout)
    checked = pomagent("check", "--config", str(tmp_path / "agent.toml"), **home.environment)
    assert checked.returncode == 0, checked.stderr + done.stdout
    assert "4 routes" in checked.stdout
    assert done.stdout.count("# left out: ") == 3


def test_routes_of_a_configured_gateway_fit_an_included_file(
    bastion: Bastion, gateway: Gateway, listed: Callable[[], None]
) -> None:
    listed()
    (bastion.directory / "routes.d").mkdir()
    bastion.save({"orders-db": ANY}, agent={"include": ["routes.d/*.toml"]})
    done = pomagent("routes", "demo", "--toml", "--config", str(bastion.path))
    assert done.returncode == 0, done.stderr
    (bastion.directory / "routes.d/demo.toml").write_text(done.stdout)
    checked = pomagent("check", "--config", str(bastion.path))
    assert checked.returncode == 0, checked.stderr + done.stdout
    assert "5 routes" in checked.stdout
    assert 'name = "orders-db-2"' in done.stdout


def test_a_missing_portal_is_reported(home: Home, visitor: Visitor, gateway: Gateway) -> None:
    home.run("login", "--browser-cmd", visitor.command)
    gateway.identity.has_portal = False
    done = home.run("routes")
    assert done.returncode == CANNOT_SERVE
    assert "the routes portal" in done.stderr
    assert home.run("whoami").returncode == 0


def test_no_output_contains_a_token(home: Home, visitor: Visitor, gateway: Gateway) -> None:
    outputs = [home.run(*words) for words in (
        ("login", "--browser-cmd", visitor.command), ("whoami",), ("whoami", "--json"), ("routes",), ("logout",)
    )]  # fmt: skip
    (token,) = gateway.identity.minted
    assert all(token not in done.stdout + done.stderr and done.returncode == 0 for done in outputs)
    assert SIGN_IN.search(outputs[0].stderr)
