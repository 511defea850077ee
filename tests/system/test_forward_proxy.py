"""The real agent behind a real squid and a real SOCKS5 server."""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from pomagent import settings
from pomagent.credentials import edge_api
from pomagent.errors import CredentialRejected, GatewayUnreachable, GatewayUntrusted, ProxyRefused
from pomagent.settings import ForwardProxy, HostPort, Trust
from tests.gateway.destinations import pseudo_random
from tests.gateway.facade import Gateway
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import wait_until
from tests.servers.microsocks import Microsocks, microsocks
from tests.servers.squid import Squid, squid
from tests.support.agent.agent_process import AgentProcess, connect, pomagent
from tests.support.agent.bastion import ANY, Bastion, hear, say
from tests.support.browser.visitor import Visitor

USER, PASSWORD = "bastion", "hunter2-of-the-proxy"
ROUTE = {"echo": {"listen": ANY, "warm": "tunnel"}}


@pytest.fixture(scope="module")
def open_squid(shared_gateway: Gateway) -> Iterator[Squid]:
    """A squid without users, for the gateway's port only. It alone resolves the gateway's name."""
    gateway = shared_gateway
    with squid(gateway.authority.issue_server("squid"), {gateway.host: LOOPBACK}, port=gateway.port) as running:
        yield running


@pytest.fixture(scope="module")
def closed_squid(shared_gateway: Gateway) -> Iterator[Squid]:
    """A squid for ``USER`` only."""
    gateway = shared_gateway
    certificate = gateway.authority.issue_server("squid")
    with squid(
        certificate, {gateway.host: LOOPBACK}, user=USER, password=PASSWORD, port=gateway.port
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def visitor(gateway: Gateway, tmp_path: Path) -> Visitor:
    return Visitor(gateway, tmp_path)


@pytest.fixture
def socks(tmp_path: Path) -> Iterator[Microsocks]:
    with microsocks(tmp_path) as running:
        yield running


def start(bastion: Bastion, proxy: str, environment: dict[str, str] | None = None, **keys: str) -> AgentProcess:
    """Start an agent that has only the gateway's name, without ``connect_to`` unless ``keys`` has one."""
    table = {"connect_to": "", "forward_proxy": proxy, **keys}
    return bastion.start(ROUTE, environment, **{"gateways.demo": table})


def write_credentials(bastion: Bastion, text: str) -> str:
    file = bastion.directory / "proxy-credentials"
    draft = bastion.directory / "proxy-credentials.draft"
    draft.touch(mode=0o600)
    draft.write_text(f"{text}\n")
    draft.replace(file)
    return file.name


def check_bytes(agent: AgentProcess, client_port: int) -> None:
    """Send more data than all buffers on the path hold, and compare its hash."""
    length = 3_000_000
    blocks = list(pseudo_random(7, length))
    with connect(client_port) as client:
        client.sendall(struct.pack(">Q", length))
        for block in blocks:
            client.sendall(block)
        assert hear(client, 65).decode().strip() == hashlib.sha256(b"".join(blocks)).hexdigest()


class TestSquid:
    def test_a_tunnel_reaches_a_name_that_only_the_proxy_resolves(self, bastion: Bastion, open_squid: Squid) -> None:
        agent = start(bastion, open_squid.url)
        agent.wait_for("pool.filled")
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"
            assert open_squid.connections
        closed = agent.wait_for("session.closed")
        assert closed["warm"] is True
        wait_until(lambda: any(f"CONNECT {bastion.gateway.host}:" in line for line in open_squid.requests))

    @pytest.mark.parametrize(("scheme", "transport"), [("http", "http1"), ("https", "http1"), ("https", "http2")])
    def test_no_byte_changes_on_the_path(
        self, bastion: Bastion, open_squid: Squid, scheme: str, transport: str
    ) -> None:  # fmt: skip
        url = open_squid.url if scheme == "http" else open_squid.tls_url
        table = {"connect_to": "", "forward_proxy": url, "transport": transport}
        agent = bastion.start({"upload": ANY, "download": ANY}, **{"gateways.demo": table})
        check_bytes(agent, agent.port("upload"))
        with connect(agent.port("download")) as client:
            client.sendall(b"11 3000000\n")
            expected = hashlib.sha256(b"".join(pseudo_random(11, 3_000_000))).digest()
            assert hashlib.sha256(hear(client, 3_000_000)).digest() == expected
            assert client.recv(1) == b""
        assert agent.wait_for("session.closed", route="download")["reason"] == "finished"

    def test_the_proxy_gets_user_and_password(self, bastion: Bastion, closed_squid: Squid) -> None:
        file = write_credentials(bastion, f"{USER}:{PASSWORD}")
        agent = start(bastion, closed_squid.url, forward_proxy_credentials_file=file)
        agent.wait_for("pool.filled")
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"
        assert PASSWORD not in agent.log
        assert PASSWORD not in str(agent.status())

    def test_a_407_is_reported_and_is_no_verdict_on_the_token(self, bastion: Bastion, closed_squid: Squid) -> None:
        agent = start(bastion, closed_squid.url)
        failed = agent.wait_for("tunnel.failed")
        assert (failed["phase"], failed["recovery"], failed["status"]) == ("proxy", "operator", None)
        assert (
            "refuses CONNECT with 407; set a user and a password in forward_proxy_credentials_file" in (failed["error"])
        )
        (route,) = agent.status()["routes"]
        assert route["state"] == "down"
        assert not agent.events("credential.rejected")

    def test_corrected_credentials_are_used_at_once(self, bastion: Bastion, closed_squid: Squid) -> None:
        file = write_credentials(bastion, f"{USER}:wrong-{PASSWORD}")
        agent = start(bastion, closed_squid.url, forward_proxy_credentials_file=file)
        assert "mend the user and the password" in agent.wait_for("tunnel.failed")["error"]
        write_credentials(bastion, f"{USER}:{PASSWORD}")
        agent.wait_for("config.applied", replaced=1)
        agent.wait_for("pool.filled")
        assert PASSWORD not in agent.log

    def test_a_403_of_the_proxy_is_not_the_gateways(self, bastion: Bastion, open_squid: Squid) -> None:
        agent = start(bastion, open_squid.url, connect_to=f"{LOOPBACK}:1")
        failed = agent.wait_for("tunnel.failed")
        assert (failed["phase"], failed["recovery"]) == ("proxy", "operator")
        assert f"forbids connections to {LOOPBACK}:1 (403); allow CONNECT to it in its rules" in failed["error"]
        (route,) = agent.status()["routes"]
        assert route["state"] == "down"

    def test_a_stopped_gateway_behind_the_proxy_is_reported(self, bastion: Bastion, open_squid: Squid) -> None:
        bastion.gateway.edge.stop()
        agent = start(bastion, open_squid.url)
        failed = agent.wait_for("tunnel.failed")
        assert (failed["phase"], failed["recovery"]) == ("proxy", "retry")
        assert f"cannot connect to {bastion.gateway.host}:{bastion.gateway.port} (503)" in failed["error"]
        bastion.gateway.edge.start()
        agent.wait_for("pool.filled", timeout_s=40)

    def test_a_stopped_proxy_is_reported(self, bastion: Bastion) -> None:
        agent = start(bastion, f"http://{LOOPBACK}:1")
        failed = agent.wait_for("tunnel.failed")
        assert (failed["phase"], failed["recovery"]) == ("proxy", "retry")
        expected = (
            f"no TCP connection to the forward proxy {LOOPBACK}:1: connection refused; start the forward proxy, or mend"
        )
        assert expected in failed["error"]

    def test_a_tunnel_goes_through_tls_to_the_proxy(self, bastion: Bastion, closed_squid: Squid) -> None:
        file = write_credentials(bastion, f"{USER}:{PASSWORD}")
        agent = start(bastion, closed_squid.tls_url, forward_proxy_credentials_file=file)
        agent.wait_for("pool.filled")
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"

    def test_the_proxy_of_the_environment_is_used(self, bastion: Bastion, open_squid: Squid) -> None:
        agent = start(bastion, "env", {"HTTPS_PROXY": f"{LOOPBACK}:{open_squid.port}", "NO_PROXY": "other.test"})
        agent.wait_for("pool.filled")
        assert open_squid.connections

    def test_a_gateway_in_no_proxy_is_reached_directly(self, bastion: Bastion, open_squid: Squid) -> None:
        environment = {"https_proxy": open_squid.url, "no_proxy": ".example.test"}
        agent = start(bastion, "env", environment, connect_to=bastion.gateway.connect_to)
        agent.wait_for("pool.filled")
        assert not open_squid.connections


class TestSocks:
    @pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
    def test_a_tunnel_goes_through_the_proxy(self, bastion: Bastion, socks: Microsocks, scheme: str) -> None:
        agent = start(bastion, f"{scheme}://{socks.address}", connect_to=f"localhost:{bastion.gateway.port}")
        agent.wait_for("pool.filled")
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"
        requested = "localhost" if scheme == "socks5h" else LOOPBACK
        wait_until(lambda: any(f"{requested}:{bastion.gateway.port}" in line for line in socks.requests))

    def test_the_proxy_gets_user_and_password(self, bastion: Bastion, tmp_path: Path) -> None:
        with microsocks(tmp_path, user=USER, password=PASSWORD) as closed:
            connect_to = bastion.gateway.connect_to
            agent = start(bastion, f"socks5://{closed.address}", connect_to=connect_to)
            failed = agent.wait_for("tunnel.failed")
            assert (failed["phase"], failed["recovery"]) == ("proxy", "operator")
            assert "set a user and a password in forward_proxy_credentials_file" in failed["error"]
            file = write_credentials(bastion, f"{USER}:{PASSWORD}")
            bastion.save(ROUTE, **{"gateways.demo": {
                "connect_to": connect_to, "forward_proxy": f"socks5://{closed.address}",
                "forward_proxy_credentials_file": file,
            }})  # fmt: skip
            agent.wait_for("pool.filled")
            with connect(agent.port("echo")) as client:
                assert say(client) == b"hello\n"
            assert PASSWORD not in agent.log

    def test_a_stopped_gateway_behind_the_proxy_is_reported(self, bastion: Bastion, socks: Microsocks) -> None:
        bastion.gateway.edge.stop()
        agent = start(bastion, f"socks5://{socks.address}", connect_to=bastion.gateway.connect_to)
        failed = agent.wait_for("tunnel.failed")
        assert (failed["phase"], failed["recovery"]) == ("proxy", "retry")
        assert "cannot connect to" in failed["error"]

    def test_a_server_that_is_no_proxy_is_reported(self, bastion: Bastion) -> None:
        agent = start(bastion, f"socks5h://{bastion.gateway.connect_to}")
        failed = agent.wait_for("tunnel.failed")
        assert failed["phase"] == "proxy"


def gateway_settings(gateway: Gateway, proxy: ForwardProxy, connect_to: HostPort | None = None) -> settings.Gateway:
    address = HostPort(gateway.host, gateway.port)
    return settings.Gateway(
        "demo", address, connect_to=connect_to, trust=Trust(ca_file=gateway.ca_file),
        proxy=replace(proxy, trust=Trust(ca_file=gateway.ca_file, with_system=True)),
    )  # fmt: skip


class TestTheGatewaysOwnPages:
    """Login and portal pages, which ``requests`` fetches."""

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_pages_come_through_squid(self, gateway: Gateway, closed_squid: Squid, scheme: str) -> None:
        port = closed_squid.port if scheme == "http" else closed_squid.tls_port
        proxy = ForwardProxy(scheme, HostPort("localhost", port), SecretStr(f"{USER}:{PASSWORD}"))  # type: ignore[arg-type]
        token = SecretStr(gateway.identity.mint())
        assert edge_api.user(gateway_settings(gateway, proxy), token)["email"] == "alice@example.test"
        url = edge_api.sign_in_url(gateway_settings(gateway, proxy), "http://127.0.0.1:1/callback")
        assert url.startswith(f"{gateway.url}/.pomerium/sign_in?")

    @pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
    def test_pages_come_through_socks(self, gateway: Gateway, socks: Microsocks, scheme: str) -> None:
        proxy = ForwardProxy(scheme, HostPort(LOOPBACK, socks.port))  # type: ignore[arg-type]
        token = SecretStr(gateway.identity.mint())
        behind_proxy = gateway_settings(gateway, proxy, HostPort("localhost", gateway.port))
        assert edge_api.portal_routes(behind_proxy, token) == []
        assert socks.requests

    def test_a_407_is_the_proxys_and_rejects_no_token(self, gateway: Gateway, closed_squid: Squid) -> None:
        proxy = ForwardProxy("http", HostPort(LOOPBACK, closed_squid.port), SecretStr(f"{USER}:wrong-{PASSWORD}"))
        with pytest.raises(ProxyRefused, match="refuses CONNECT with 407; mend the user and the password") as refused:
            edge_api.user(gateway_settings(gateway, proxy), SecretStr(gateway.identity.mint()))
        assert PASSWORD not in str(refused.value)

    def test_a_stopped_proxy_is_unreachable(self, gateway: Gateway) -> None:
        proxy = ForwardProxy("http", HostPort(LOOPBACK, 1))
        with pytest.raises(GatewayUnreachable, match="accepts no TCP connection: connection refused; is it up"):
            edge_api.user(gateway_settings(gateway, proxy), SecretStr(gateway.identity.mint()))

    def test_the_gateways_certificate_is_verified_through_the_proxy(self, gateway: Gateway, open_squid: Squid) -> None:
        behind_proxy = gateway_settings(gateway, ForwardProxy("http", HostPort(LOOPBACK, open_squid.port)))
        with pytest.raises(GatewayUntrusted, match="certificate"):
            edge_api.user(replace(behind_proxy, trust=Trust()), SecretStr(gateway.identity.mint()))

    def test_a_dead_token_is_rejected_through_the_proxy(self, gateway: Gateway, open_squid: Squid) -> None:
        behind_proxy = gateway_settings(gateway, ForwardProxy("http", HostPort(LOOPBACK, open_squid.port)))
        with pytest.raises(CredentialRejected):
            edge_api.user(behind_proxy, SecretStr("no-such-token"))

    def test_commands_use_the_proxy(self, bastion: Bastion, closed_squid: Squid) -> None:
        keys = {"connect_to": "", "forward_proxy": closed_squid.url}
        keys["forward_proxy_credentials_file"] = write_credentials(bastion, f"{USER}:{PASSWORD}")
        bastion.replace_token(bastion.gateway.identity.mint())
        bastion.gateway.identity.list_route("orders", "tcp+https://orders.example.test:5432")
        path = bastion.save(ROUTE, **{"gateways.demo": keys})
        listed = pomagent("routes", "demo", "--json", "--config", str(path))
        assert listed.returncode == 0, listed.stderr
        assert "orders" in listed.stdout
        probed = pomagent("probe", "--config", str(path))
        assert probed.returncode == 0, probed.stdout + probed.stderr


class TestALogin:
    """A login for the running agent, from the sign-in address to the first tunnel."""

    def log_in(self, bastion: Bastion, visitor: Visitor, proxy: str, **keys: str) -> None:
        people = {"credentials.people": {"login": "browser"}}
        demo = {"connect_to": "", "forward_proxy": proxy, "credential": "people", **keys}
        agent = bastion.start(ROUTE, **people, **{"gateways.demo": demo})
        done = agent.command("login", "demo", "--browser-cmd", visitor.command)
        assert done.returncode == 0, done.stdout + done.stderr
        agent.wait_for("pool.filled")
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"

    def test_a_login_goes_through_squid(self, bastion: Bastion, visitor: Visitor, closed_squid: Squid) -> None:
        file = write_credentials(bastion, f"{USER}:{PASSWORD}")
        self.log_in(bastion, visitor, closed_squid.url, forward_proxy_credentials_file=file)

    def test_a_login_goes_through_a_socks5_server(self, bastion: Bastion, visitor: Visitor, socks: Microsocks) -> None:
        self.log_in(bastion, visitor, f"socks5://{socks.address}", connect_to=bastion.gateway.connect_to)
