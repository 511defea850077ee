"""Dialling a gateway that fails in every phase: the error's class, its sentence, what may help, and nothing left."""

import errno
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import gevent
import pytest

from pomagent.errors import (
    GatewayMisbehaved,
    GatewayTimedOut,
    GatewayUnreachable,
    GatewayUntrusted,
    Recovery,
    TunnelError,
)
from pomagent.gateway.dialer import Dialer, Secured
from pomagent.settings import Gateway, HostPort, Trust
from pomagent.transport import happy_eyeballs, tcp
from pomagent.transport.resolver import Address, LookupFailed, Resolver
from pomagent.transport.tls_context import make_context
from tests.fakes import gateway as play
from tests.fakes.gateway import HOST, FakeGateway, black_hole
from tests.gateway.certificates import A_DAY, Authority
from tests.gateway.ports import LOOPBACK, ReservedPort
from tests.gateway.waiting import wait_until
from tests.support.inspection.leaks import open_sockets

pytestmark = pytest.mark.usefixtures("no_leaks")


class FakeResolver:
    """Knows the addresses that the test gives it."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self._addresses: list[Address] = [
            (socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port)) for host, port in addresses
        ]

    def resolve(self, target: HostPort, timeout_s: float) -> list[Address]:
        if not self._addresses:
            raise LookupFailed(f"no address for {target.host}: name or service not known")
        return self._addresses

    def close(self) -> None:
        pass


def dialer(gateway: Gateway, resolver: Any = None) -> Dialer:
    context = make_context(gateway.tunnel_trust) if gateway.tls else None
    return Dialer(gateway, context, resolver or Resolver())


def dialled(gateway: Gateway, resolver: Any = None) -> Secured:
    return dialer(gateway, resolver).dial("db.example.test:5432")


def failure(gateway: Gateway, resolver: Any = None) -> TunnelError:
    with pytest.raises(TunnelError) as caught:
        dialled(gateway, resolver).stream.close()
    return caught.value


def class_phase_recovery(error: TunnelError) -> tuple[type[TunnelError], str, Recovery]:
    return type(error), error.phase, error.recovery


@pytest.fixture
def closed_address() -> Iterator[HostPort]:
    """An address without a listener."""
    reserved = ReservedPort()
    yield HostPort(LOOPBACK, reserved.port)
    reserved.release()


@pytest.fixture
def silent_address() -> Iterator[HostPort]:
    """An address from which no answer ever comes."""
    address, sockets = black_hole()
    yield address
    for sock in sockets:
        sock.close()


class TestSuccess:
    def test_is_a_stream_ready_for_a_connect_with_the_time_of_each_phase(self, fake: FakeGateway) -> None:
        secured = dialled(fake.settings)
        assert secured.stream.send(b"x") == 1
        times = secured.timings
        assert None not in (times.dns_ms, times.tcp_ms, times.tls_ms)
        assert times.connect_ms is None
        secured.stream.close()

    def test_says_when_tls_begins(self, fake: FakeGateway) -> None:
        began: list[str] = []
        dialer(fake.settings).dial("db:1", lambda: began.append("tls")).stream.close()
        assert began == ["tls"]

    def test_without_tls_is_the_bare_connection(self, fake: FakeGateway) -> None:
        fake.plays(lambda connection: connection.send_raw(b"hello"))
        secured = dialled(replace(fake.settings, tls=False))
        secured.stream.wait_readable(5)
        buffer = bytearray(10)
        assert secured.stream.recv_into(memoryview(buffer)) == 5
        assert secured.timings.tls_ms is None
        secured.stream.close()

    def test_offers_http1_only_and_names_the_gateways_host(self, fake: FakeGateway) -> None:
        names: list[str | None] = []
        fake.context.sni_callback = lambda _sock, name, _context: names.append(name)
        dialled(fake.settings).stream.close()
        assert names == [HOST]
        assert fake.connections[0].tls.selected_alpn_protocol() == "http/1.1"

    def test_sets_the_options_of_a_leg_that_is_not_settled(self, fake: FakeGateway) -> None:
        stream = dialled(fake.settings).stream
        assert options(stream.sock) == {
            "nodelay": 1, "keepalive": 1, "idle": 15, "interval": 5, "probes": 3, "user timeout": 20_000,
        }  # fmt: skip
        stream.close()

    def test_never_dials_more_than_max_dials_at_a_time(self, fake: FakeGateway) -> None:
        fake.plays(play.says_nothing)
        dials = dialer(replace(fake.settings, max_dials=2, tls_timeout_s=0.3))
        waiting = [gevent.Greenlet.spawn(pytest.raises, GatewayTimedOut, dials.dial, "db:1") for _ in range(4)]
        wait_until(lambda: len(fake.connections) == 2)
        gevent.sleep(0.05)
        assert len(fake.connections) == 2
        gevent.joinall(waiting)
        assert len(fake.connections) == 4


class TestDns:
    def test_an_unknown_name(self, fake: FakeGateway) -> None:
        error = failure(fake.settings, FakeResolver())
        assert class_phase_recovery(error) == (GatewayUnreachable, "dns", Recovery.RETRY)
        assert str(error) == (
            "db.example.test:5432: no address for 127.0.0.1: name or service not known; "
            f"check the name and this host's resolver (via {HOST}:{fake.address.port})"
        )

    def test_a_real_unknown_name(self) -> None:
        resolver = Resolver()
        error = failure(Gateway("g", HostPort("no-such-host.invalid", 443)), resolver)
        assert class_phase_recovery(error)[:2] == (GatewayUnreachable, "dns")
        assert "no address for no-such-host.invalid" in str(error)
        resolver.close()


class TestTcp:
    def test_a_refused_connection(self, fake: FakeGateway, closed_address: HostPort) -> None:
        error = failure(replace(fake.settings, connect_to=closed_address))
        assert class_phase_recovery(error) == (GatewayUnreachable, "tcp", Recovery.RETRY)
        assert f"no TCP connection to {closed_address}: connection refused; start the gateway, or mend the URL" in str(
            error
        )

    def test_a_silent_address(self, fake: FakeGateway, silent_address: HostPort) -> None:
        error = failure(replace(fake.settings, connect_to=silent_address, connect_timeout_s=0.2))
        assert class_phase_recovery(error) == (GatewayTimedOut, "tcp", Recovery.RETRY)
        assert f"no TCP connection to {silent_address} within 0.2 s; look for a firewall in between" in str(error)

    def test_without_descriptors_the_remedy_is_the_limit(
        self, fake: FakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def exhausted(*_: object) -> socket.socket:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(happy_eyeballs.socket, "socket", exhausted)
        error = failure(fake.settings, FakeResolver((LOOPBACK, fake.address.port)))
        assert class_phase_recovery(error)[:2] == (GatewayUnreachable, "tcp")
        assert "too many open files; raise LimitNOFILE of the service" in str(error)


class TestHappyEyeballs:
    def test_a_dead_first_address_is_passed_over_at_once(self, fake: FakeGateway, closed_address: HostPort) -> None:
        resolver = FakeResolver((LOOPBACK, closed_address.port), (LOOPBACK, fake.address.port))
        dialled(replace(fake.settings, connect_to=HostPort(HOST, 1)), resolver).stream.close()

    def test_a_silent_first_address_is_overtaken_and_its_attempt_closed(
        self, fake: FakeGateway, silent_address: HostPort
    ) -> None:
        before = open_sockets()
        resolver = FakeResolver((LOOPBACK, silent_address.port), (LOOPBACK, fake.address.port))
        secured = dialled(fake.settings, resolver)
        assert len(open_sockets() - before) == 2  # the winner and the fake's own end
        assert secured.timings.tcp_ms is not None
        assert secured.timings.tcp_ms >= happy_eyeballs.STAGGER_S * 1000
        secured.stream.close()

    def test_of_two_that_answer_one_connection_stays(self, authority: Authority, fake: FakeGateway) -> None:
        with FakeGateway(authority) as second:
            resolver = FakeResolver((LOOPBACK, fake.address.port), (LOOPBACK, second.address.port))
            secured = dialled(fake.settings, resolver)
            assert len(fake.connections) + len(second.connections) == 1
            secured.stream.close()

    def test_first_error_is_reported_when_all_addresses_fail(self, fake: FakeGateway, closed_address: HostPort) -> None:
        resolver = FakeResolver((LOOPBACK, closed_address.port), ("::1", closed_address.port))
        error = failure(fake.settings, resolver)
        assert class_phase_recovery(error)[:2] == (GatewayUnreachable, "tcp")
        assert "connection refused" in str(error)

    def test_all_addresses_share_one_timeout(self, fake: FakeGateway, silent_address: HostPort) -> None:
        resolver = FakeResolver(*[(LOOPBACK, silent_address.port)] * 3)
        error = failure(replace(fake.settings, connect_timeout_s=0.3), resolver)
        assert class_phase_recovery(error)[:2] == (GatewayTimedOut, "tcp")

    def test_a_refused_and_a_silent_address_are_a_timeout(
        self, fake: FakeGateway, closed_address: HostPort, silent_address: HostPort
    ) -> None:
        resolver = FakeResolver((LOOPBACK, closed_address.port), (LOOPBACK, silent_address.port))
        assert isinstance(failure(replace(fake.settings, connect_timeout_s=0.3), resolver), GatewayTimedOut)

    def test_families_alternate_beginning_with_the_resolvers_choice(self) -> None:
        def addresses(*hosts: str) -> list[Address]:
            return [(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, 443)) for host in hosts]

        mixed = happy_eyeballs.interleave(addresses("::1", "::2", "::3", "10.0.0.1"))
        assert [host for _, (host, _) in mixed] == ["::1", "10.0.0.1", "::2", "::3"]

    def test_a_kill_in_the_middle_leaves_nothing_open(self, fake: FakeGateway, silent_address: HostPort) -> None:
        resolver = FakeResolver(*[(LOOPBACK, silent_address.port)] * 3)
        dialling = gevent.Greenlet.spawn(dialled, fake.settings, resolver)
        gevent.sleep(happy_eyeballs.STAGGER_S * 1.5)
        dialling.kill()  # no_leaks looks at the rest


class TestTls:
    def test_an_untrusted_authority(self, fake: FakeGateway, other_authority: Authority) -> None:
        error = failure(replace(fake.settings, trust=Trust(ca_file=other_authority.ca_file)))
        assert class_phase_recovery(error) == (GatewayUntrusted, "tls", Recovery.OPERATOR)
        assert "gateway's certificate is not accepted: unable to get local issuer certificate; set ca_file" in str(
            error
        )

    def test_a_wrong_host_name(self, fake: FakeGateway) -> None:
        error = failure(replace(fake.settings, address=HostPort("edge.example.com", 443)))
        assert class_phase_recovery(error) == (GatewayUntrusted, "tls", Recovery.OPERATOR)
        assert "Hostname mismatch, certificate is not valid for 'edge.example.com'" in str(error)

    def test_an_expired_certificate(self, authority: Authority) -> None:
        with FakeGateway(authority, authority.issue_server("expired", expires_in=-A_DAY)) as expired:
            error = failure(expired.settings)
        assert class_phase_recovery(error) == (GatewayUntrusted, "tls", Recovery.OPERATOR)
        assert "certificate has expired" in str(error)

    def test_the_gateway_is_told_why_its_certificate_was_not_accepted(
        self, fake: FakeGateway, other_authority: Authority
    ) -> None:
        failure(replace(fake.settings, trust=Trust(ca_file=other_authority.ca_file)))
        wait_until(lambda: fake.errors)
        assert "UNKNOWN_CA" in str(fake.errors[0]).upper().replace(" ", "_")

    def test_a_certificate_that_is_wrong_for_a_moment_is_looked_at_once_more(
        self, fake: FakeGateway, other_authority: Authority
    ) -> None:
        began: list[str] = []
        wrong_at_first(fake, other_authority, times=1)
        dialer(fake.settings).dial("db:1", lambda: began.append("tls")).stream.close()
        assert (len(fake.connections), began) == (2, ["tls"])

    def test_a_certificate_that_stays_wrong_is_not_looked_at_again(
        self, fake: FakeGateway, other_authority: Authority
    ) -> None:
        wrong_at_first(fake, other_authority, times=2)
        assert class_phase_recovery(failure(fake.settings)) == (GatewayUntrusted, "tls", Recovery.OPERATOR)
        assert len(fake.connections) == 2

    def test_a_wanted_client_certificate_is_no_matter_of_a_moment(self, fake: FakeGateway) -> None:
        require_client_certificate(fake)
        fake.context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert class_phase_recovery(failure(fake.settings)) == (GatewayUntrusted, "tls", Recovery.OPERATOR)
        assert len(fake.connections) == 1

    def test_nothing_is_verified_where_the_operator_says_so(self, fake: FakeGateway) -> None:
        secured = dialled(replace(fake.settings, trust=Trust(verify=False)))
        secured.stream.close()

    @pytest.mark.parametrize("script", [play.babbles, lambda c: c.send_raw(b"SSH-2.0-OpenSSH_9.2p1\r\n")])
    def test_a_plain_text_server(self, fake: FakeGateway, script: play.Script) -> None:
        fake.plays(script)
        error = failure(fake.settings)
        assert class_phase_recovery(error) == (GatewayMisbehaved, "tls", Recovery.RETRY)
        assert "the gateway does not answer in TLS; check its scheme and port (via " in str(error)

    def test_a_gateway_that_never_answers(self, fake: FakeGateway) -> None:
        fake.plays(play.says_nothing)
        error = failure(replace(fake.settings, tls_timeout_s=0.2))
        assert class_phase_recovery(error) == (GatewayTimedOut, "tls", Recovery.RETRY)
        assert f"no TLS handshake with {fake.address} within 0.2 s; is it overloaded" in str(error)

    def test_a_gateway_that_trickles_has_the_same_budget(self, fake: FakeGateway) -> None:
        def trickle(connection: play.Connection) -> None:
            connection.sock.recv(1000)
            connection.send_raw(b"\x16\x03\x03\x10\x00")
            while True:
                connection.send_raw(b"\x00")
                gevent.sleep(0.01)

        fake.plays(trickle)
        assert class_phase_recovery(failure(replace(fake.settings, tls_timeout_s=0.3)))[:2] == (GatewayTimedOut, "tls")

    def test_a_reset(self, fake: FakeGateway) -> None:
        fake.plays(play.resets)
        error = failure(fake.settings)
        assert class_phase_recovery(error) == (GatewayUnreachable, "tls", Recovery.RETRY)
        assert "the connection was lost in the TLS handshake; is the gateway restarting?" in str(error)
        assert str(error).endswith(": connection reset by peer)")

    def test_an_early_end(self, fake: FakeGateway) -> None:
        fake.plays(play.closes)
        error = failure(fake.settings)
        assert class_phase_recovery(error) == (GatewayUnreachable, "tls", Recovery.RETRY)
        assert "the gateway closed the connection in the TLS handshake; is it restarting?" in str(error)

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
    def test_a_gateway_whose_tls_is_too_old(self, fake: FakeGateway) -> None:
        fake.context.minimum_version = ssl.TLSVersion.TLSv1_1
        fake.context.maximum_version = ssl.TLSVersion.TLSv1_1
        fake.context.set_ciphers("DEFAULT:@SECLEVEL=0")
        error = failure(fake.settings)
        assert class_phase_recovery(error) == (GatewayMisbehaved, "tls", Recovery.RETRY)
        assert "the gateway offers no TLS 1.2 or newer; enable it there" in str(error)

    def test_a_client_certificate_that_tls_1_2_asks_for(self, fake: FakeGateway) -> None:
        require_client_certificate(fake)
        fake.context.maximum_version = ssl.TLSVersion.TLSv1_2
        error = failure(fake.settings)
        assert class_phase_recovery(error) == (GatewayUntrusted, "tls", Recovery.OPERATOR)
        assert "the gateway requires a client certificate that it trusts; set client_cert_file" in str(error)
        assert str(error).endswith(": sslv3 alert handshake failure)")

    def test_the_client_certificate_it_asks_for(self, fake: FakeGateway, authority: Authority) -> None:
        require_client_certificate(fake)
        client = authority.issue_client()
        trust = replace(fake.settings.trust, client_cert_file=client.cert_file, client_key_file=client.key_file)
        secured = dialled(replace(fake.settings, trust=trust))
        secured.stream.close()

    def test_a_kill_in_the_middle_leaves_nothing_open(self, fake: FakeGateway) -> None:
        fake.plays(play.says_nothing)
        dialling = gevent.Greenlet.spawn(dialled, fake.settings)
        wait_until(lambda: fake.connections)
        dialling.kill()


def wrong_at_first(fake: FakeGateway, stranger: Authority, times: int) -> None:
    """As an edge that is about to load its certificate: the first handshakes show another one."""
    wrong = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = stranger.issue_server("wrong")
    wrong.load_cert_chain(certificate.cert_file, certificate.key_file)

    def choose(sock: Any, _name: str | None, _context: ssl.SSLContext) -> None:
        if len(fake.connections) <= times:
            sock.context = wrong

    fake.context.sni_callback = choose


def require_client_certificate(fake: FakeGateway) -> None:
    fake.context.verify_mode = ssl.CERT_REQUIRED
    fake.context.load_verify_locations(fake.authority.ca_file)


def options(sock: socket.socket) -> dict[str, int]:
    get: Callable[[int, int], int] = sock.getsockopt
    return {
        "nodelay": get(socket.IPPROTO_TCP, socket.TCP_NODELAY),
        "keepalive": get(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        "idle": get(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        "interval": get(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        "probes": get(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
        "user timeout": get(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    }


def test_unix_sockets_need_no_options() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        tcp.prepare(ours)
        assert tcp.is_prepared(ours)
        assert not tcp.is_lost(ours)
        assert not tcp.is_dead(ours)


class TestMemoryOfAddresses:
    def test_refusing_address_is_dialled_last_from_then_on(self, fake: FakeGateway, closed_address: HostPort) -> None:
        dials = dialer(
            fake.settings, FakeResolver((closed_address.host, closed_address.port), (LOOPBACK, fake.address.port))
        )
        dials.dial("db:1").stream.close()
        assert dials.avoided == [str(closed_address)]
        in_order = dials._addresses.order(dials._resolver.resolve(closed_address, 1), time.monotonic())
        assert [address for _, address in in_order] == [
            (LOOPBACK, fake.address.port),
            (closed_address.host, closed_address.port),
        ]

    def test_silent_address_costs_its_head_start_only_once(self, fake: FakeGateway, silent_address: HostPort) -> None:
        resolver = FakeResolver((silent_address.host, silent_address.port), (LOOPBACK, fake.address.port))
        dials = dialer(fake.settings, resolver)
        first, second = dials.dial("db:1"), dials.dial("db:1")
        assert first.timings.tcp_ms is not None
        assert second.timings.tcp_ms is not None
        assert first.timings.tcp_ms >= happy_eyeballs.STAGGER_S * 1000 > second.timings.tcp_ms
        assert dials.avoided == [str(silent_address)]
        for secured in (first, second):
            secured.stream.close()

    def test_address_that_aborts_the_handshake_is_dialled_last(self, fake: FakeGateway) -> None:
        fake.plays(lambda connection: connection.close(), play.accepts())
        dials = dialer(fake.settings, FakeResolver((LOOPBACK, fake.address.port)))
        with pytest.raises(TunnelError):
            dials.dial("db:1")
        assert dials.avoided == [str(fake.address)]
        dials.dial("db:1").stream.close()  # the only one there is
        assert dials.avoided == []

    def test_a_changed_answer_of_the_resolver_is_adopted(self, fake: FakeGateway, closed_address: HostPort) -> None:
        resolver = FakeResolver((closed_address.host, closed_address.port))
        dials = dialer(fake.settings, resolver)
        with pytest.raises(GatewayUnreachable):
            dials.dial("db:1")
        resolver._addresses = FakeResolver((LOOPBACK, fake.address.port))._addresses
        dials.dial("db:1").stream.close()
