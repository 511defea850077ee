"""Dialling through a forward proxy that fails in every way: the error, its budget, and nothing left behind."""

from collections.abc import Callable
from dataclasses import replace

import gevent
import pytest

from pomagent.errors import (
    GatewayMisbehaved,
    GatewayTimedOut,
    GatewayUnreachable,
    GatewayUntrusted,
    ProxyRefused,
    TunnelError,
)
from pomagent.gateway.dialer import Dialer, Secured
from pomagent.settings import ForwardProxy, Gateway, HostPort, ProxyScheme, Trust
from pomagent.transport.resolver import Resolver
from pomagent.transport.tls_context import make_context
from tests.fakes import gateway as play
from tests.fakes.gateway import CHUNK, HEAD_END, HOST, Connection, FakeGateway, black_hole
from tests.gateway.certificates import Authority
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
SOCKS_GRANTED = bytes([5, 0, 0, 1, 0, 0, 0, 0, 0, 0])


def behind(fake: FakeGateway, scheme: ProxyScheme = "http", **changes: object) -> Gateway:
    """A gateway that only the fake, which plays the proxy, leads to."""
    trust = Trust(ca_file=fake.authority.ca_file, with_system=True)
    proxy = ForwardProxy(scheme, HostPort("localhost", fake.address.port), trust=trust)
    return replace(fake.settings, proxy=proxy, **{"connect_to": HostPort("10.255.0.1", 443), **changes})  # type: ignore[arg-type]


def dialler(gateway: Gateway, resolver: Resolver) -> Dialer:
    assert gateway.proxy is not None
    outer = make_context(gateway.proxy.trust) if gateway.proxy.scheme == "https" else None
    return Dialer(gateway, make_context(gateway.trust), resolver, proxy_context=outer)


def dialled(gateway: Gateway) -> Secured:
    resolver = Resolver()
    try:
        return dialler(gateway, resolver).dial("db:5432")
    finally:
        resolver.close()


def failure(gateway: Gateway) -> TunnelError:
    with pytest.raises(TunnelError) as caught:
        dialled(gateway).stream.close()
    return caught.value


def passes(connection: Connection) -> None:
    """Play the proxy, then the gateway behind it."""
    passes_on(connection, GRANTED)
    connection.handshake()


def passes_on(connection: Connection, answer: bytes) -> None:
    while HEAD_END not in connection.request:
        connection.request += connection.sock.recv(CHUNK)
    connection.send_raw(answer)


def socks(connection: Connection) -> None:
    connection.sock.recv(CHUNK)
    connection.send_raw(b"\x05\x00")
    connection.request = connection.sock.recv(CHUNK)
    connection.send_raw(SOCKS_GRANTED)
    connection.handshake()


def test_the_gateways_tls_follows_the_proxys_answer(fake: FakeGateway) -> None:
    fake.plays(passes)
    secured = dialled(behind(fake))
    assert fake.connections[0].request.startswith(b"CONNECT 10.255.0.1:443 HTTP/1.1\r\n")
    times = secured.timings
    assert None not in (times.dns_ms, times.tcp_ms, times.tls_ms)
    secured.stream.close()


def test_an_answer_in_pieces(fake: FakeGateway) -> None:
    def stutters(connection: Connection) -> None:
        passes_on(connection, b"")
        for byte in GRANTED:
            connection.send_raw(bytes([byte]))
            gevent.sleep(0.001)
        connection.handshake()

    fake.plays(stutters)
    dialled(behind(fake)).stream.close()


def test_socks_is_given_an_address_and_the_next_one_if_that_fails(fake: FakeGateway) -> None:
    def refuses(connection: Connection) -> None:
        connection.sock.recv(CHUNK)
        connection.send_raw(b"\x05\x00")
        connection.request = connection.sock.recv(CHUNK)
        connection.send_raw(b"\x05\x04\x00\x01" + bytes(6))

    class TwoAddresses(Resolver):
        def resolve(self, target: HostPort, timeout_s: float) -> list:  # type: ignore[type-arg]
            if target.host == "localhost":
                return super().resolve(HostPort(LOOPBACK, target.port), timeout_s)
            return [(10, ("2001:db8::1", target.port)), (2, ("10.255.0.1", target.port))]

    fake.plays(refuses, socks)
    resolver = TwoAddresses()
    gateway = behind(fake, "socks5", connect_to=HostPort("edge.test", 443))
    dialler(gateway, resolver).dial("db:5432").stream.close()
    resolver.close()
    assert [connection.request[3] for connection in fake.connections] == [4, 1]


def test_socks5h_is_given_the_name(fake: FakeGateway) -> None:
    fake.plays(socks)
    dialled(behind(fake, "socks5h", connect_to=None)).stream.close()
    assert HOST.encode() in fake.connections[0].request


FAILURES: list[tuple[str, play.Script, type[TunnelError], str]] = [
    ("http", lambda c: passes_on(c, b"HTTP/1.1 407 No\r\n\r\n"), ProxyRefused, "refuses CONNECT with 407"),
    ("http", lambda c: passes_on(c, b"HTTP/1.1 403 No\r\n\r\n"), ProxyRefused, "forbids connections to 10.255.0.1:443"),
    ("http", lambda c: passes_on(c, b"SSH-2.0-x\r\n\r\n"), GatewayMisbehaved, "check scheme and port of forward_proxy"),
    ("http", lambda c: passes_on(c, GRANTED + b"x"), GatewayMisbehaved, "it sent bytes before the gateway could"),
    ("http", play.closes, GatewayUnreachable, "closed the connection without an answer"),
    ("http", play.resets, GatewayUnreachable, "closed the connection (connection reset by peer)"),
    ("http", play.says_nothing, GatewayTimedOut, "opened no connection within 0.3 s"),
    ("http", play.secures, GatewayTimedOut, "opened no connection within 0.3 s"),
    ("socks5h", play.closes, GatewayUnreachable, "closed the connection in the SOCKS handshake"),
    ("socks5h", play.says_nothing, GatewayTimedOut, "opened no connection within 0.3 s"),
    ("socks5h", lambda c: c.send_raw(b"HTTP/1.1 400 \r\n\r\n"), GatewayMisbehaved, "as a SOCKS5 proxy ("),
    ("https", play.says_nothing, GatewayTimedOut, "no TLS handshake with the forward proxy localhost:"),
    ("https", play.babbles, GatewayMisbehaved, "the forward proxy does not answer in TLS; check its scheme and port"),
    ("https", play.closes, GatewayUnreachable, "proxy closed the connection in the TLS handshake"),
]


@pytest.mark.parametrize(("scheme", "script", "kind", "words"), FAILURES)
def test_every_failure_has_the_phase_proxy_and_a_remedy(
    fake: FakeGateway, scheme: ProxyScheme, script: play.Script, kind: type[TunnelError], words: str
) -> None:
    fake.plays(script)
    error = failure(behind(fake, scheme, connect_timeout_s=0.3, tls_timeout_s=0.3))
    assert (type(error), error.phase) == (kind, "proxy")
    assert words in str(error)


def test_a_proxy_that_trickles_has_the_same_budget(fake: FakeGateway) -> None:
    def trickles(connection: Connection) -> None:
        passes_on(connection, b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.send_raw(b"x: y\r\n")
            gevent.sleep(0.01)

    fake.plays(trickles)
    assert isinstance(failure(behind(fake, connect_timeout_s=0.3)), GatewayTimedOut)


def test_a_proxy_that_takes_no_connection(fake: FakeGateway) -> None:
    address, sockets = black_hole()
    gateway = replace(behind(fake, connect_timeout_s=0.3), proxy=ForwardProxy("http", address))
    error = failure(gateway)
    assert (type(error), error.phase) == (GatewayTimedOut, "proxy")
    assert f"no TCP connection to the forward proxy {address} within 0.3 s" in str(error)
    for sock in sockets:
        sock.close()


def test_a_proxy_whose_name_nobody_knows(fake: FakeGateway) -> None:
    gateway = replace(behind(fake), proxy=ForwardProxy("http", HostPort("no-such-proxy.invalid", 1)))
    error = failure(gateway)
    assert (type(error), error.phase) == (GatewayUnreachable, "proxy")
    assert "no address for no-such-proxy.invalid" in str(error)


def test_a_proxy_whose_certificate_is_not_accepted(fake: FakeGateway, other_authority: Authority) -> None:
    gateway = behind(fake, "https")
    assert gateway.proxy is not None
    stranger = replace(gateway.proxy, trust=Trust(ca_file=other_authority.ca_file, with_system=True))
    error = failure(replace(gateway, proxy=stranger))
    assert (type(error), error.phase) == (GatewayUntrusted, "proxy")
    assert "the forward proxy localhost" in str(error)
    assert "forward_proxy to a name that the certificate covers" in str(error)


def test_a_proxy_that_wants_a_client_certificate_gets_none(fake: FakeGateway, authority: Authority) -> None:
    play_tls_1_2(fake)
    client = authority.issue_client("for-the-gateway")
    trust = Trust(
        ca_file=authority.ca_file, client_cert_file=client.cert_file, client_key_file=client.key_file
    )  # fmt: skip
    error = failure(behind(fake, "https", trust=trust))
    assert (type(error), error.phase) == (GatewayUntrusted, "proxy")
    assert "requires a client certificate" in str(error)


def play_tls_1_2(fake: FakeGateway) -> None:
    import ssl

    fake.context.verify_mode = ssl.CERT_REQUIRED
    fake.context.load_verify_locations(fake.authority.ca_file)
    fake.context.maximum_version = ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("script", [play.says_nothing, passes])
def test_a_kill_in_the_middle_leaves_nothing_open(fake: FakeGateway, script: Callable[[Connection], None]) -> None:
    fake.plays(lambda connection: gevent.sleep(60) if script is passes else script(connection))
    dialling = gevent.Greenlet.spawn(dialled, behind(fake))
    wait_until(lambda: fake.connections)
    dialling.kill()
