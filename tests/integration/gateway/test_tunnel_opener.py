"""Opening tunnels through a gateway that answers in every way: result and number of attempts."""

import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gevent
import pytest
from pydantic import SecretStr

from pomagent.credentials.token import Token
from pomagent.errors import (
    CredentialError,
    CredentialRejected,
    DestinationDown,
    GatewayMisbehaved,
    GatewayOverloaded,
    GatewayTimedOut,
    GatewayUnreachable,
    GatewayUntrusted,
    OutageInFront,
    Recovery,
    RequestRefused,
    RouteForbidden,
    RouteUnknown,
    TunnelError,
)
from pomagent.gateway.connect import READ_BYTES
from pomagent.gateway.dialer import Dialer
from pomagent.gateway.tunnel import Tunnel
from pomagent.gateway.tunnel_opener import TunnelOpener
from pomagent.protocol.connect import MAX_HEAD_BYTES
from pomagent.protocol.lifecycle import Reason
from pomagent.settings import Credential, Route
from pomagent.transport.resolver import Resolver
from pomagent.transport.tls_context import make_context
from tests.fakes import gateway as play
from tests.fakes.gateway import Connection, FakeGateway, accepts, answers, refuses, rejects, then
from tests.fakes.log import FakeLog
from tests.gateway.certificates import Authority
from tests.gateway.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_leaks")

OLD, NEW = SecretStr("old-token"), SecretStr("new-token")


class Source:
    """Where a token is read anew. Counts how often."""

    def __init__(self, token: SecretStr | None) -> None:
        self.token = token
        self.reads = 0

    def __call__(self, credential: Credential) -> SecretStr:
        self.reads += 1
        if self.token is None:
            raise CredentialError("the file is gone")
        return self.token


class Opened:
    """A connector to the fake gateway, and what it logged."""

    def __init__(self, fake: FakeGateway, route: Route | None = None, source: Source | None = None) -> None:
        self.log = FakeLog()
        self.route = route or fake.route()
        gateway = self.route.gateway
        dialer = Dialer(gateway, make_context(gateway.tunnel_trust) if gateway.tls else None, Resolver())
        credential = Credential("default", "service_account_file", token=OLD)
        self.source = source or Source(OLD)
        self.connector = TunnelOpener(self.route, dialer, Token(credential, self.source, self.log.log), self.log.log)

    def open(self) -> Tunnel:
        return self.connector.open(self.connector.secure())

    def failure(self) -> TunnelError:
        with pytest.raises(TunnelError) as caught:
            self.open().close(Reason.ABORTED)
        return caught.value


def tokens(fake: FakeGateway) -> list[str]:
    """What authenticated each CONNECT."""
    lines = [line for c in fake.connections for line in c.request.decode().split("\r\n") if line.startswith("author")]
    return [line.partition(": ")[2] for line in lines]


class TestAnAcceptedConnect:
    def test_is_a_ready_tunnel_with_the_gateways_request_id(self, fake: FakeGateway) -> None:
        opened = Opened(fake)
        tunnel = opened.open()
        assert (tunnel.is_ready, tunnel.request_id) == (True, "fake-1")
        assert tunnel.timings.connect_ms is not None
        assert [event["request_id"] for event in opened.log.named("tunnel.opened")] == ["fake-1"]
        tunnel.close(Reason.FINISHED)

    def test_names_the_destination_and_carries_the_token(self, fake: FakeGateway) -> None:
        Opened(fake).open().close(Reason.FINISHED)
        assert fake.connections[0].request.startswith(b"CONNECT db.example.test:5432 HTTP/1.1\r\n")
        assert tokens(fake) == ["Pomerium old-token"]

    def test_comes_from_a_gateway_with_an_ipv6_address_too(self, authority: Authority) -> None:
        with FakeGateway(authority, host="::1") as fake:
            named_by_address = replace(fake.settings, address=fake.address, connect_to=None)
            Opened(fake, fake.route(named_by_address)).open().close(Reason.FINISHED)
            assert fake.connections[0].request.startswith(b"CONNECT db.example.test:5432 HTTP/1.1\r\n")

    def test_keeps_the_bytes_that_came_with_it(self, fake: FakeGateway) -> None:
        fake.plays(accepts(early=b"SSH-2.0-test\r\n"))
        tunnel = Opened(fake).open()
        assert tunnel.early == b"SSH-2.0-test\r\n"
        tunnel.close(Reason.FINISHED)

    def test_may_arrive_byte_by_byte(self, fake: FakeGateway) -> None:
        fake.plays(answers(play.OK + b"hi", piece=1))
        tunnel = Opened(fake).open()
        assert tunnel.is_ready
        assert tunnel.early in (b"", b"h", b"hi")
        tunnel.close(Reason.FINISHED)

    def test_may_follow_a_hundred_continue(self, fake: FakeGateway) -> None:
        fake.plays(answers(b"HTTP/1.1 100 Continue\r\n\r\n" + play.OK))
        tunnel = Opened(fake).open()
        assert tunnel.is_ready
        tunnel.close(Reason.FINISHED)

    def test_needs_no_token_where_the_route_has_none(self, fake: FakeGateway) -> None:
        opened = Opened(fake)
        opened.connector._token = None
        opened.open().close(Reason.FINISHED)
        assert tokens(fake) == []

    def test_with_a_token_larger_than_the_kernels_first_buffer(self, fake: FakeGateway) -> None:
        opened = Opened(fake, fake.route(replace(fake.settings, response_timeout_s=20)))
        opened.connector._token.value = SecretStr("x" * 3_000_000)  # type: ignore[union-attr]
        tunnel = opened.open()
        assert len(fake.connections[0].request) > 3_000_000
        tunnel.close(Reason.FINISHED)


REFUSALS: list[tuple[int, bytes, type[TunnelError], Recovery]] = [
    (401, b'{"error":"Unauthenticated","request_id":"r-1"}', CredentialRejected, Recovery.REAUTHENTICATE),
    (401, b"", OutageInFront, Recovery.RETRY),
    (302, b"", OutageInFront, Recovery.RETRY),
    (403, b'{"error":"Forbidden","request_id":"r-1"}', RouteForbidden, Recovery.OPERATOR),
    (403, b"", OutageInFront, Recovery.RETRY),
    (404, b'{"statusText":"route_not_found"}', RouteUnknown, Recovery.OPERATOR),
    (400, b"", RequestRefused, Recovery.OPERATOR),
    (503, b'{"statusText":"remote_connection_failure"}', DestinationDown, Recovery.RETRY),
    (503, b"", GatewayOverloaded, Recovery.RETRY),
    (429, b"", GatewayOverloaded, Recovery.RETRY),
]


class TestARefusal:
    @pytest.mark.parametrize(("status", "body", "kind", "recovery"), REFUSALS)
    def test_has_the_class_and_the_recovery_of_its_status(
        self, fake: FakeGateway, status: int, body: bytes, kind: type[TunnelError], recovery: Recovery
    ) -> None:
        fake.plays(refuses(status, body, content_type="application/json", x_request_id="r-1"))
        error = Opened(fake).failure()
        assert (type(error), error.recovery, error.status, error.request_id, error.phase) == (
            kind, recovery, status, "r-1", "connect",
        )  # fmt: skip

    def test_closes_its_connection_and_is_logged_once(self, fake: FakeGateway) -> None:
        fake.plays(rejects(403))
        opened = Opened(fake)
        opened.failure()
        (failed,) = opened.log.named("tunnel.failed")
        assert (failed["status"], failed["phase"], failed["recovery"]) == (403, "connect", "operator")
        assert "old-token" not in opened.log.text

    @pytest.mark.parametrize("end", [Connection.finish, Connection.fin, Connection.reset])
    def test_counts_however_the_connection_ends_after_it(
        self, fake: FakeGateway, end: Callable[[Connection], None]
    ) -> None:
        fake.plays(
            then(
                answers(
                    b"HTTP/1.1 403 Forbidden\r\nx-pomerium-intercepted-response: true\r\ncontent-length: 2\r\n\r\nno"
                ),
                end,
            )
        )
        assert isinstance(Opened(fake).failure(), RouteForbidden)

    @pytest.mark.parametrize("end", [Connection.finish, Connection.fin])
    def test_counts_even_if_its_body_breaks_off(self, fake: FakeGateway, end: Callable[[Connection], None]) -> None:
        fake.plays(
            then(
                answers(
                    b"HTTP/1.1 403 Forbidden\r\nx-pomerium-intercepted-response: true\r\ncontent-length: 200\r\n\r\nno"
                ),
                end,
            )
        )
        assert isinstance(Opened(fake).failure(), RouteForbidden)

    def test_counts_even_if_its_body_never_ends(self, fake: FakeGateway) -> None:
        fake.plays(
            answers(b"HTTP/1.1 403 Forbidden\r\nx-pomerium-intercepted-response: true\r\ncontent-length: 200\r\n\r\nno")
        )
        gateway = replace(fake.settings, response_timeout_s=0.2)
        assert isinstance(Opened(fake, fake.route(gateway)).failure(), RouteForbidden)

    def test_that_comes_before_the_request_was_read_counts(self, fake: FakeGateway) -> None:
        def play_it(connection: Connection) -> None:
            connection.handshake()
            connection.send(b"HTTP/1.1 431 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            connection.finish()
            gevent.sleep(0.05)
            connection.close()

        fake.plays(play_it)
        opened = Opened(fake)
        opened.connector._token.value = SecretStr("x" * 30_000_000)  # type: ignore[union-attr]
        assert isinstance(opened.failure(), RequestRefused)

    def test_a_body_larger_than_the_limit_is_cut_and_harmless(self, fake: FakeGateway) -> None:
        fake.plays(refuses(403, b"x" * 1_000_000, x_pomerium_intercepted_response="true"))
        assert isinstance(Opened(fake).failure(), RouteForbidden)

    def test_200_with_a_body_is_no_tunnel(self, fake: FakeGateway) -> None:
        fake.plays(answers(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi"))
        error = Opened(fake).failure()
        assert (type(error), error.status) == (GatewayMisbehaved, 200)
        assert "something in front of the gateway terminates HTTP; pass TCP through" in str(error)


class TestNoAnswer:
    def test_within_the_budget_is_a_timeout(self, fake: FakeGateway) -> None:
        fake.plays(play.reads)
        error = Opened(fake, fake.route(replace(fake.settings, response_timeout_s=0.2))).failure()
        assert (type(error), error.phase, error.recovery) == (GatewayTimedOut, "connect", Recovery.RETRY)
        assert "no answer to the CONNECT within 0.2 s" in str(error)

    def test_from_a_deaf_gateway_that_does_not_even_read_is_a_timeout(self, fake: FakeGateway) -> None:
        fake.plays(play.secures)
        opened = Opened(fake, fake.route(replace(fake.settings, response_timeout_s=0.3)))
        opened.connector._token.value = SecretStr("x" * 30_000_000)  # type: ignore[union-attr]
        assert isinstance(opened.failure(), GatewayTimedOut)

    def test_endless_hundred_continues_are_a_timeout_and_do_not_hold_the_hub(self, fake: FakeGateway) -> None:
        def play_it(connection: Connection) -> None:
            connection.handshake()
            connection.read_request()
            while True:
                connection.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

        fake.plays(play_it)
        error = Opened(fake, fake.route(replace(fake.settings, response_timeout_s=0.3))).failure()
        assert isinstance(error, GatewayTimedOut)

    @pytest.mark.parametrize(
        ("end", "what", "detail"),
        [
            (Connection.finish, "the gateway closed the connection before it answered", ""),
            (Connection.fin, "the connection was lost before the gateway answered", ": closed without close_notify"),
            (Connection.reset, "the connection was lost before the gateway answered", ": connection reset by peer"),
        ],
    )
    def test_an_end_is_unreachable(
        self, fake: FakeGateway, end: Callable[[Connection], None], what: str, detail: str
    ) -> None:
        fake.plays(then(play.reads, end))
        error = Opened(fake).failure()
        assert (type(error), error.phase, error.recovery) == (GatewayUnreachable, "connect", Recovery.RETRY)
        assert f": {what}; is it restarting? (via {error.gateway}{detail})" in str(error)

    @pytest.mark.parametrize("raw", [b"SSH-2.0-test\r\n\r\n", b"\x00\x01\x02\x03" * 10 + b"\r\n\r\n"])
    def test_but_something_else_than_http_misbehaves(self, fake: FakeGateway, raw: bytes) -> None:
        fake.plays(answers(raw))
        error = Opened(fake).failure()
        assert (type(error), error.phase) == (GatewayMisbehaved, "connect")
        assert "does the gateway's URL lead to Pomerium?" in str(error)

    @pytest.mark.parametrize(("extra", "is_tunnel"), [(-5000, True), (READ_BYTES + 5000, False)])
    def test_a_head_may_be_large_but_not_oversized(self, fake: FakeGateway, extra: int, is_tunnel: bool) -> None:
        filler = b"x-filler: " + b"x" * (MAX_HEAD_BYTES + extra)
        fake.plays(answers(b"HTTP/1.1 200 OK\r\n" + filler + b"\r\n\r\n"))
        opened = Opened(fake)
        if is_tunnel:
            opened.open().close(Reason.FINISHED)
        else:
            assert isinstance(opened.failure(), GatewayMisbehaved)


class TestAClientCertificate:
    def test_that_tls_1_3_asks_for_shows_only_after_the_handshake(self, fake: FakeGateway) -> None:
        fake.context.verify_mode = ssl.CERT_REQUIRED
        fake.context.load_verify_locations(fake.authority.ca_file)
        error = Opened(fake).failure()
        assert (type(error), error.phase, error.recovery) == (GatewayUntrusted, "connect", Recovery.OPERATOR)
        assert "the gateway requires a client certificate that it trusts; set client_cert_file" in str(error)
        assert str(error).endswith(": tlsv13 alert certificate required)")

    def test_of_another_authority_is_told_apart_from_none(self, fake: FakeGateway, other_authority: Any) -> None:
        fake.context.verify_mode = ssl.CERT_REQUIRED
        fake.context.load_verify_locations(fake.authority.ca_file)
        stranger = other_authority.issue_client("stranger-client")
        trust = replace(fake.settings.trust, client_cert_file=stranger.cert_file, client_key_file=stranger.key_file)
        error = Opened(fake, fake.route(replace(fake.settings, trust=trust))).failure()
        assert isinstance(error, GatewayUntrusted)
        assert "unknown ca" in str(error)


class TestOneMoreTry:
    @pytest.mark.parametrize("status", [401, 302])
    def test_with_a_fresh_token_over_a_new_connection(self, fake: FakeGateway, status: int) -> None:
        fake.plays(rejects(status), accepts())
        opened = Opened(fake, source=Source(NEW))
        opened.open().close(Reason.FINISHED)
        assert tokens(fake) == ["Pomerium old-token", "Pomerium new-token"]
        assert opened.source.reads == 1

    def test_and_no_second_one(self, fake: FakeGateway) -> None:
        fake.plays(rejects())
        opened = Opened(fake, source=Source(NEW))
        assert isinstance(opened.failure(), CredentialRejected)
        assert len(fake.connections) == 2
        assert opened.source.reads == 1

    def test_not_with_the_same_token(self, fake: FakeGateway) -> None:
        fake.plays(rejects())
        opened = Opened(fake, source=Source(OLD))
        assert isinstance(opened.failure(), CredentialRejected)
        assert len(fake.connections) == 1

    def test_not_if_the_token_cannot_be_read(self, fake: FakeGateway) -> None:
        fake.plays(rejects())
        assert isinstance(Opened(fake, source=Source(None)).failure(), CredentialRejected)
        assert len(fake.connections) == 1

    def test_not_after_a_denial(self, fake: FakeGateway) -> None:
        fake.plays(rejects(403))
        opened = Opened(fake, source=Source(NEW))
        opened.failure()
        assert (len(fake.connections), opened.source.reads) == (1, 0)

    def test_not_for_a_fresh_connection_that_is_lost(self, fake: FakeGateway) -> None:
        fake.plays(then(play.reads, Connection.reset))
        assert isinstance(Opened(fake).failure(), GatewayUnreachable)
        assert len(fake.connections) == 1

    def test_for_a_connection_that_died_while_it_was_warm(self, fake: FakeGateway) -> None:
        fake.plays(then(play.reads, Connection.reset), accepts())
        opened = Opened(fake)
        secured = opened.connector.secure()
        secured.keep_warm(lambda _: None)
        tunnel = opened.connector.open(secured)
        assert tunnel is not secured
        assert (tunnel.is_ready, len(fake.connections)) == (True, 2)
        tunnel.close(Reason.FINISHED)

    def test_only_once_for_those(self, fake: FakeGateway) -> None:
        fake.plays(then(play.reads, Connection.reset))
        opened = Opened(fake)
        secured = opened.connector.secure()
        secured.keep_warm(lambda _: None)
        with pytest.raises(GatewayUnreachable):
            opened.connector.open(secured)
        assert len(fake.connections) == 2


def test_a_kill_in_the_middle_closes_the_connection(fake: FakeGateway) -> None:
    fake.plays(play.reads)
    opening = gevent.Greenlet.spawn(Opened(fake).open)
    wait_until(lambda: fake.connections and fake.connections[0].request)
    opening.kill()


def test_without_tls_the_same_holds(fake: FakeGateway) -> None:
    def clear_text(connection: Connection) -> None:
        connection.request = connection.sock.recv(10_000)
        connection.send_raw(play.OK + b"early")

    fake.plays(clear_text)
    tunnel = Opened(fake, fake.route(replace(fake.settings, tls=False))).open()
    assert (tunnel.is_ready, bytes(tunnel.early)) == (True, b"early")
    tunnel.close(Reason.FINISHED)
