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
    """For everybody, to the gateway's port only; it alone knows where the gateway's name leads."""
    gateway = shared_gateway
    with squid(gateway.authority.issue_server("squid"), {gateway.host: LOOPBACK}, port=gateway.port) as running:
        yield running


@pytest.fixture(scope="module")
def closed_squid(shared_gateway: Gateway) -> Iterator[Squid]:
    """For ``USER`` only."""
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
    """An agent that has nothing but the gateway's name: no ``connect_to``, unless ``keys`` give one."""
    edge_api = {"connect_to": "", "forward_proxy": proxy, **keys}
    return bastion.start(ROUTE, environment, **{"gateways.demo": edge_api})


def write_credentials(bastion: Bastion, text: str) -> str:
    file = bastion.directory / "proxy-credentials"
    draft = bastion.directory / "proxy-credentials.draft"
    draft.touch(mode=0o600)
    draft.write_text(f"{text}\n")
    draft.replace(file)
    return file.name


def check_bytes(agent: AgentProcess, client_port: int) -> None:
    """Hashed data, more than any buffer on the way holds."""
    length = 3_000_000
    blocks = list(pseudo_random(7, length))
    with connect(client_port) as client:
        client.sendall(struct.pack(">Q", length))
        for block in blocks:
            client.sendall(block)
        assert hear(client, 65).decode().strip() == hashlib.sha256(b"".join(blocks)).hexdigest()


class TestSquid:
    def test_a_tunnel_goes_through_it_to_a_name_that_only_it_knows(self, bastion: Bastion, open_squid: Squid) -> None:
        agent = start(bastion, open_squid.url)
        agent.wait_for("pool.filled")
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"
            assert open_squid.connections
        closed = agent.wait_for("session.closed")
        assert closed["warm"] is True
        wait_until(lambda: any(f"CONNECT {bastion.gateway.host}:" in line for line in open_squid.requests))

    @pytest.mark.parametrize(("scheme", "transport"), [("http", "http1"), ("https", "http1"), ("https", "http2")])
    def test_no_byte_changes_on_the_way(
        self, bastion: Bastion, open_squid: Squid, scheme: str, transport: str
    ) -> None:  # fmt: skip
        url = open_squid.url if scheme == "http" else open_squid.tls_url
        edge_api = {"connect_to": "", "forward_proxy": url, "transport": transport}
        agent = bastion.start({"upload": ANY, "download": ANY}, **{"gateways.demo": edge_api})
        check_bytes(agent, agent.port("upload"))
        with connect(agent.port("download")) as client:
            client.sendall(b"11 3000000\n")
            expected = hashlib.sha256(b"".join(pseudo_random(11, 3_000_000))).digest()
            assert hashlib.sha256(hear(client, 3_000_000)).digest() == expected
            assert client.recv(1) == b""
        assert agent.wait_for("session.closed", route="download")["reason"] == "finished"

    def test_it_is_given_the_user_and_the_password(self, bastion: Bastion, closed_squid: Squid) -> None:
        file = write_credentials(bastion, f"{USER}:{PASSWORD}")
        agent = start(bastion, closed_squid.url, forward_proxy_credentials_file=file)
        agent.wait_for("pool.filled")
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"
        assert PASSWORD not in agent.log
        assert PASSWORD not in str(agent.status())

    def test_its_407_is_a_sentence_and_no_verdict_on_the_token(self, bastion: Bastion, closed_squid: Squid) -> None:
        agent = start(bastion, closed_squid.url)
        failed = agent.wait_for("tunnel.failed")
        assert (failed["phase"], failed["recovery"], failed["status"]) == ("proxy", "operator", None)
        assert (
            "refuses with 407: it asks for a user and a password; set forward_proxy_credentials_file"
            in (failed["error"])
        )
        (route,) = agent.status()["routes"]
        assert route["state"] == "down"
        assert not agent.events("credential.rejected")

    def test_credentials_that_were_mended_are_used_at_once(self, bastion: Bastion, closed_squid: Squid) -> None:
        file = write_credentials(bastion, f"{USER}:wrong-{PASSWORD}")
        agent = start(bastion, closed_squid.url, forward_proxy_credentials_file=file)
        assert "does not accept the user and the password" in agent.wait_for("tunnel.failed")["error"]
        write_credentials(bastion, f"{USER}:{PASSWORD}")
        agent.wait_for("config.applied", replaced=1)
        agent.wait_for("pool.filled")
        assert PASSWORD not in agent.log

    def test_its_403_is_not_the_gateways(self, bastion: Bastion, open_squid: Squid) -> None:
        agent = start(bastion, open_squid.url, connect_to=f"{LOOPBACK}:1")
        failed = agent.wait_for("tunnel.failed")
        assert (failed["phase"], failed["recovery"]) == ("proxy", "operator")
        assert f"forbids connections to {LOOPBACK}:1 (403); have its rules allow CONNECT to it" in failed["error"]
        (route,) = agent.status()["routes"]
        assert route["state"] == "down"

    def test_a_gateway_that_is_down_behind_it(self, bastion: Bastion, open_squid: Squid) -> None:
        bastion.gateway.edge.stop()
        agent = start(bastion, open_squid.url)
        failed = agent.wait_for("tunnel.failed")
        assert (failed["phase"], failed["recovery"]) == ("proxy", "retry")
        assert f"gets no connection to {bastion.gateway.host}:{bastion.gateway.port} (503)" in failed["error"]
        bastion.gateway.edge.start()
        agent.wait_for("pool.filled", timeout_s=40)

    def test_a_proxy_that_is_down_and_comes_back(self, bastion: Bastion) -> None:
        agent = start(bastion, f"http://{LOOPBACK}:1")
        failed = agent.wait_for("tunnel.failed")
        assert (failed["phase"], failed["recovery"]) == ("proxy", "retry")
        said = (
            f"no TCP connection to the forward proxy {LOOPBACK}:1: connection refused; start the forward proxy, or mend"
        )
        assert said in failed["error"]

    def test_tls_to_the_proxy_and_tls_within(self, bastion: Bastion, closed_squid: Squid) -> None:
        file = write_credentials(bastion, f"{USER}:{PASSWORD}")
        agent = start(bastion, closed_squid.tls_url, forward_proxy_credentials_file=file)
        agent.wait_for("pool.filled")
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"

    def test_env_names_it(self, bastion: Bastion, open_squid: Squid) -> None:
        agent = start(bastion, "env", {"HTTPS_PROXY": f"{LOOPBACK}:{open_squid.port}", "NO_PROXY": "other.test"})
        agent.wait_for("pool.filled")
        assert open_squid.connections

    def test_env_leaves_out_what_no_proxy_names(self, bastion: Bastion, open_squid: Squid) -> None:
        environment = {"https_proxy": open_squid.url, "no_proxy": ".example.test"}
        agent = start(bastion, "env", environment, connect_to=bastion.gateway.connect_to)
        agent.wait_for("pool.filled")
        assert not open_squid.connections


class TestSocks:
    @pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
    def test_a_tunnel_goes_through_it(self, bastion: Bastion, socks: Microsocks, scheme: str) -> None:
        agent = start(bastion, f"{scheme}://{socks.address}", connect_to=f"localhost:{bastion.gateway.port}")
        agent.wait_for("pool.filled")
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"
        asked = "localhost" if scheme == "socks5h" else LOOPBACK
        wait_until(lambda: any(f"{asked}:{bastion.gateway.port}" in line for line in socks.requests))

    def test_it_is_given_the_user_and_the_password(self, bastion: Bastion, tmp_path: Path) -> None:
        with microsocks(tmp_path, user=USER, password=PASSWORD) as closed:
            connect_to = bastion.gateway.connect_to
            agent = start(bastion, f"socks5://{closed.address}", connect_to=connect_to)
            failed = agent.wait_for("tunnel.failed")
            assert (failed["phase"], failed["recovery"]) == ("proxy", "operator")
            assert "set forward_proxy_credentials_file" in failed["error"]
            file = write_credentials(bastion, f"{USER}:{PASSWORD}")
            bastion.save(ROUTE, **{"gateways.demo": {
                "connect_to": connect_to, "forward_proxy": f"socks5://{closed.address}",
                "forward_proxy_credentials_file": file,
            }})  # fmt: skip
            agent.wait_for("pool.filled")
            with connect(agent.port("echo")) as client:
                assert say(client) == b"hello\n"
            assert PASSWORD not in agent.log

    def test_a_gateway_that_is_down_behind_it(self, bastion: Bastion, socks: Microsocks) -> None:
        bastion.gateway.edge.stop()
        agent = start(bastion, f"socks5://{socks.address}", connect_to=bastion.gateway.connect_to)
        failed = agent.wait_for("tunnel.failed")
        assert (failed["phase"], failed["recovery"]) == ("proxy", "retry")
        assert "gets no connection to" in failed["error"]

    def test_a_server_that_is_none(self, bastion: Bastion) -> None:
        agent = start(bastion, f"socks5h://{bastion.gateway.connect_to}")
        failed = agent.wait_for("tunnel.failed")
        assert failed["phase"] == "proxy"


def edge_of(gateway: Gateway, proxy: ForwardProxy, connect_to: HostPort | None = None) -> settings.Gateway:
    address = HostPort(gateway.host, gateway.port)
    return settings.Gateway(
        "demo", address, connect_to=connect_to, trust=Trust(ca_file=gateway.ca_file),
        proxy=replace(proxy, trust=Trust(ca_file=gateway.ca_file, with_system=True)),
    )  # fmt: skip


class TestTheEdgesOwnPages:
    """Login and portal, which ``requests`` fetches."""

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_come_through_squid(self, gateway: Gateway, closed_squid: Squid, scheme: str) -> None:
        port = closed_squid.port if scheme == "http" else closed_squid.tls_port
        proxy = ForwardProxy(scheme, HostPort("localhost", port), SecretStr(f"{USER}:{PASSWORD}"))  # type: ignore[arg-type]
        token = SecretStr(gateway.identity.mint())
        assert edge_api.user(edge_of(gateway, proxy), token)["email"] == "alice@example.test"
        url = edge_api.sign_in_url(edge_of(gateway, proxy), "http://127.0.0.1:1/callback")
        assert url.startswith(f"{gateway.url}/.pomerium/sign_in?")

    @pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
    def test_come_through_socks(self, gateway: Gateway, socks: Microsocks, scheme: str) -> None:
        proxy = ForwardProxy(scheme, HostPort(LOOPBACK, socks.port))  # type: ignore[arg-type]
        token = SecretStr(gateway.identity.mint())
        there = edge_of(gateway, proxy, HostPort("localhost", gateway.port))
        assert edge_api.portal_routes(there, token) == []
        assert socks.requests

    def test_a_407_is_the_proxys_and_condemns_no_token(self, gateway: Gateway, closed_squid: Squid) -> None:
        proxy = ForwardProxy("http", HostPort(LOOPBACK, closed_squid.port), SecretStr(f"{USER}:wrong-{PASSWORD}"))
        with pytest.raises(ProxyRefused, match="refuses with 407: it does not accept the user and the password") as no:
            edge_api.user(edge_of(gateway, proxy), SecretStr(gateway.identity.mint()))
        assert PASSWORD not in str(no.value)

    def test_a_proxy_that_is_down(self, gateway: Gateway) -> None:
        proxy = ForwardProxy("http", HostPort(LOOPBACK, 1))
        with pytest.raises(GatewayUnreachable, match="accepts no TCP connection: connection refused; is it up"):
            edge_api.user(edge_of(gateway, proxy), SecretStr(gateway.identity.mint()))

    def test_the_gateways_certificate_is_verified_within(self, gateway: Gateway, open_squid: Squid) -> None:
        there = edge_of(gateway, ForwardProxy("http", HostPort(LOOPBACK, open_squid.port)))
        with pytest.raises(GatewayUntrusted, match="certificate"):
            edge_api.user(replace(there, trust=Trust()), SecretStr(gateway.identity.mint()))

    def test_a_dead_token_is_the_gateways_verdict_all_the_same(self, gateway: Gateway, open_squid: Squid) -> None:
        there = edge_of(gateway, ForwardProxy("http", HostPort(LOOPBACK, open_squid.port)))
        with pytest.raises(CredentialRejected):
            edge_api.user(there, SecretStr("no-such-token"))

    def test_commands_take_the_same_way(self, bastion: Bastion, closed_squid: Squid) -> None:
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
    """The whole of it, for the running agent: sign-in address, browser, callback, hand-over, first tunnel."""

    def log_in(self, bastion: Bastion, visitor: Visitor, proxy: str, **keys: str) -> None:
        people = {"credentials.people": {"login": "browser"}}
        demo = {"connect_to": "", "forward_proxy": proxy, "credential": "people", **keys}
        agent = bastion.start(ROUTE, **people, **{"gateways.demo": demo})
        done = agent.command("login", "demo", "--browser-cmd", visitor.command)
        assert done.returncode == 0, done.stdout + done.stderr
        agent.wait_for("pool.filled")
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"

    def test_goes_through_squid_like_the_tunnels(self, bastion: Bastion, visitor: Visitor, closed_squid: Squid) -> None:
        file = write_credentials(bastion, f"{USER}:{PASSWORD}")
        self.log_in(bastion, visitor, closed_squid.url, forward_proxy_credentials_file=file)

    def test_goes_through_a_socks5_server_like_the_tunnels(
        self, bastion: Bastion, visitor: Visitor, socks: Microsocks
    ) -> None:
        self.log_in(bastion, visitor, f"socks5://{socks.address}", connect_to=bastion.gateway.connect_to)
