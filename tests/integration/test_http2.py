"""Tunnels over HTTP/2 against a gateway that sends what no real one can be made to send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import gevent
import pytest
from gevent import socket as cooperative

from pomagent.errors import (
    CredentialRejected,
    GatewayMisbehaved,
    GatewayTimedOut,
    GatewayUnreachable,
    OutageInFront,
    RouteForbidden,
    StreamLost,
)
from pomagent.gateway import tunnel as tunnel_module
from pomagent.gateway.dialer import Dialer
from pomagent.gateway.health import GatewayHealth
from pomagent.gateway.tunnel import MAX_EARLY_BYTES, Tunnel
from pomagent.protocol.http2.frames import Code, Kind, frame
from pomagent.protocol.lifecycle import Reason
from pomagent.transport import http2_stream
from pomagent.transport.http2_stream import Http2Stream
from pomagent.transport.resolver import Resolver
from pomagent.transport.tls_context import make_context
from tests.fakes import gateway as play
from tests.fakes.gateway import DESTINATION, Connection, FakeGateway
from tests.fakes.http2_edge import Http2Edge, Http2Gateway, http2_gateway, reading
from tests.fakes.log import FakeLog
from tests.gateway.certificates import Authority
from tests.gateway.destinations import pseudo_random
from tests.gateway.waiting import wait_until
from tests.integration.gateway.test_tunnel_opener import OLD, Opened, Source
from tests.integration.test_forwarder import Bench, ending, read, reset_soon

pytestmark = pytest.mark.usefixtures("no_leaks")

MIB = 1024 * 1024
BROKEN = frame(Kind.PING, 0, 0, b"short")


@pytest.fixture
def gateway(no_leaks: None, authority: Authority) -> Iterator[Http2Gateway]:
    with http2_gateway(authority) as running:
        yield running


class TestConnect:
    def test_bytes_that_come_with_the_answer_are_the_tunnels_first(self, gateway: Http2Gateway) -> None:
        def greet(edge: Http2Edge) -> None:
            edge.read_until(lambda: edge.request)
            edge.h2.send_headers(1, [(":status", "200")])
            edge.send(b"SSH-2.0-test\r\n")

        gateway.plays(gateway.does(greet))
        tunnel = Opened(gateway.fake).open()
        tunnel.keep_warm(lambda _: None)
        wait_until(lambda: tunnel.early == b"SSH-2.0-test\r\n")
        tunnel.close(Reason.FINISHED)

    def test_connect_is_accepted_and_carries_the_token(self, gateway: Http2Gateway) -> None:
        tunnel = Opened(gateway.fake).open()
        edge = gateway.edge()
        assert (tunnel.request_id, tunnel.transport) == ("fake-h2", "http2")
        assert edge.request[b":authority"] == str(DESTINATION).encode()
        assert edge.request[b"authorization"] == b"Pomerium " + OLD.get_secret_value().encode()
        tunnel.close(Reason.FINISHED)

    def test_refusal_is_the_same_error_as_over_http1(self, gateway: Http2Gateway) -> None:
        body = b'{"error":"Forbidden","request_id":"1"}'
        gateway.plays(gateway.does(lambda edge: edge.refuse(403, body, **{"content-type": "application/json"})))
        error = Opened(gateway.fake).failure()
        assert isinstance(error, RouteForbidden)
        assert str(error).endswith(": Forbidden)")

    def test_refusal_with_an_incomplete_body_is_a_refusal(self, gateway: Http2Gateway) -> None:
        def break_off(edge: Http2Edge) -> None:
            edge.read_until(lambda: edge.request)
            edge.h2.send_headers(1, [(":status", "403"), ("content-type", "application/json")])
            edge.h2.send_data(1, b'{"error"')
            edge.reset(Code.INTERNAL_ERROR)

        gateway.plays(gateway.does(break_off))
        error = Opened(gateway.fake).failure()
        assert isinstance(error, OutageInFront)  # nothing shows that Pomerium wrote it
        assert error.status == 403

    def test_refused_token_is_read_again_and_sent_once_more(self, gateway: Http2Gateway) -> None:
        gateway.plays(gateway.does(lambda edge: edge.refuse(401, b'{"error":"Unauthenticated","request_id":"1"}')))
        opened = Opened(gateway.fake, source=Source(OLD))
        assert isinstance(opened.failure(), CredentialRejected)
        assert opened.source.reads == 1

    def test_2xx_with_a_body_is_no_tunnel(self, gateway: Http2Gateway) -> None:
        gateway.plays(gateway.does(lambda edge: edge.refuse(200, b"<html>", **{"content-type": "text/html"})))
        assert isinstance(Opened(gateway.fake).failure(), GatewayMisbehaved)

    @pytest.mark.parametrize(
        ("code", "error", "words"),
        [
            (Code.REFUSED_STREAM, GatewayUnreachable, "REFUSED_STREAM"),
            (Code.INTERNAL_ERROR, GatewayUnreachable, "INTERNAL_ERROR"),
            (Code.HTTP_1_1_REQUIRED, GatewayMisbehaved, 'set transport = "http1"'),
            (99, GatewayUnreachable, "error 99"),
        ],
    )
    def test_error_of_a_reset_before_the_answer_names_its_code(
        self, gateway: Http2Gateway, code: int, error: type[Exception], words: str
    ) -> None:
        gateway.plays(gateway.does(lambda edge: edge.read_until(lambda: edge.request), lambda edge: edge.reset(code)))
        failure = Opened(gateway.fake).failure()
        assert type(failure) is error
        assert words in str(failure)

    def test_goaway_before_the_answer_is_unreachable(self, gateway: Http2Gateway) -> None:
        gateway.plays(gateway.does(lambda edge: edge.read_until(lambda: edge.request), lambda edge: edge.go_away(0, 0)))
        assert isinstance(Opened(gateway.fake).failure(), GatewayUnreachable)

    def test_missing_answer_is_a_timeout(self, gateway: Http2Gateway) -> None:
        gateway.plays(gateway.does())
        route = gateway.fake.route(replace(gateway.fake.settings, response_timeout_s=0.1))
        assert isinstance(Opened(gateway.fake, route).failure(), GatewayTimedOut)

    @pytest.mark.parametrize("bytes_sent", [BROKEN, b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["a_bad_frame", "http1"])
    def test_error_of_a_gateway_without_http2_names_the_remedy_and_the_gateway_gets_goaway(
        self, gateway: Http2Gateway, bytes_sent: bytes
    ) -> None:
        def speak(connection: Connection) -> None:
            connection.handshake()
            connection.send(bytes_sent)
            edge = Http2Edge(connection)
            edge.h2.initiate_connection()
            edge.read_until(lambda: edge.left_with)
            seen.append(edge.left_with)

        seen: list[int | None] = []
        gateway.plays(speak)
        failure = Opened(gateway.fake).failure()
        assert isinstance(failure, GatewayMisbehaved)
        assert 'set transport = "http1"' in str(failure)
        wait_until(lambda: seen)
        assert seen == [Code.PROTOCOL_ERROR]


class TestGatewayWithoutHttp2:
    def test_gateway_is_used_over_http1_and_reported_once(self, fake: FakeGateway) -> None:
        settings, log = replace(fake.settings, transport="http2"), FakeLog()
        dialer = Dialer(
            settings, make_context(settings.tunnel_trust), Resolver(), health=GatewayHealth("fake:443", log.log)
        )
        assert dialer.transport is None
        for _ in range(3):
            secured = dialer.dial("db:1")
            assert not isinstance(secured.stream, Http2Stream)
            secured.stream.close()
        assert [line["event"] for line in log.lines] == ["transport.downgraded"]
        assert dialer.transport == "http1"

    def test_gateway_with_http2_is_used_over_http1_if_the_settings_say_so(self, gateway: Http2Gateway) -> None:
        gateway.fake.context.set_alpn_protocols(["h2", "http/1.1"])
        gateway.plays(play.accepts())
        route = gateway.fake.route(replace(gateway.fake.settings, transport="http1"))
        tunnel = Opened(gateway.fake, route).open()
        assert tunnel.transport == "http1"
        tunnel.close(Reason.FINISHED)


class Warm:
    """A warm tunnel, the gateway's end of it, and the reports of its end."""

    def __init__(self, gateway: Http2Gateway) -> None:
        self.ends: list[Tunnel] = []
        self.tunnel = Opened(gateway.fake).open()
        self.edge = gateway.edge()
        self.tunnel.keep_warm(self.ends.append)


@pytest.fixture
def warm(gateway: Http2Gateway) -> Iterator[Warm]:
    running = Warm(gateway)
    yield running
    running.tunnel.close(Reason.ABORTED)


ends_of_any_kind = pytest.mark.parametrize(
    "end",
    [
        Http2Edge.end, lambda edge: edge.reset(Code.CONNECT_ERROR), lambda edge: edge.go_away(),
        lambda edge: edge.go_away(Code.INTERNAL_ERROR), lambda edge: edge.connection.finish(),
        lambda edge: edge.connection.reset(), lambda edge: edge.send_raw(BROKEN),
        lambda edge: edge.send(b"bye", end=True),
    ],
    ids=["end", "reset", "goaway", "goaway_error", "finish", "tcp_reset", "broken", "words_and_end"],
)  # fmt: skip


class TestWhileWarm:
    def test_greeting_is_kept(self, warm: Warm) -> None:
        warm.edge.send(b"SSH-2.0-")
        wait_until(lambda: warm.tunnel.early == b"SSH-2.0-")
        warm.edge.send(b"test\r\n")
        wait_until(lambda: warm.tunnel.early == b"SSH-2.0-test\r\n")
        assert warm.tunnel.is_ready

    @pytest.mark.parametrize("length", [MAX_EARLY_BYTES - 1, MAX_EARLY_BYTES, MAX_EARLY_BYTES + 1, 500_000])
    def test_greeting_up_to_and_beyond_the_limit_reaches_the_session_in_order(self, warm: Warm, length: int) -> None:
        body = b"".join(pseudo_random(length, length))
        sending = gevent.Greenlet.spawn(warm.edge.send, body)
        wait_until(lambda: len(warm.tunnel.early) == min(length, MAX_EARLY_BYTES))
        warm.tunnel.lease()
        rest, buffer = bytearray(), memoryview(bytearray(65536))
        while len(warm.tunnel.early) + len(rest) < length:
            count = warm.tunnel.stream.recv_into(buffer)
            if count is None:
                warm.tunnel.stream.wait_readable(5)
            rest += buffer[: count or 0]
        assert bytes(warm.tunnel.early) + rest == body
        sending.get(timeout=5)

    @ends_of_any_kind
    def test_end_of_any_kind_is_reported_once(self, warm: Warm, end: Callable[[Http2Edge], None]) -> None:
        end(warm.edge)
        wait_until(lambda: warm.ends)
        gevent.sleep(0.02)
        assert warm.ends == [warm.tunnel]

    @ends_of_any_kind
    def test_end_of_any_kind_is_detected_by_a_check_before_the_hub_reports_it(
        self, warm: Warm, end: Callable[[Http2Edge], None]
    ) -> None:
        warm.tunnel.look_again()
        assert warm.ends == []
        warm.tunnel.stream.transport.unwatch()  # type: ignore[union-attr]
        end(warm.edge)
        wait_until(warm.tunnel.stream.has_news)
        gevent.sleep(0.02)  # for what follows in segments of its own
        warm.tunnel.look_again()
        assert warm.ends == [warm.tunnel]

    def test_answered_pings_keep_the_tunnel(self, gateway: Http2Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http2_stream, "PING_EVERY_S", 0.3)
        warm = Warm(gateway)
        with reading(warm.edge):
            wait_until(lambda: warm.edge.pings >= 5)
        assert warm.ends == []
        warm.tunnel.close(Reason.EXPIRED)

    def test_unanswered_ping_ends_the_tunnel(self, gateway: Http2Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http2_stream, "PING_EVERY_S", 0.3)
        warm = Warm(gateway)
        wait_until(lambda: warm.ends)
        with pytest.raises(StreamLost, match="did not answer a PING"):
            warm.tunnel.stream.recv_into(memoryview(bytearray(10)))
        warm.tunnel.close(Reason.PEER_CLOSED)

    def test_gateway_is_not_pinged_during_a_session(
        self, gateway: Http2Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http2_stream, "PING_EVERY_S", 0.3)
        warm = Warm(gateway)
        warm.tunnel.lease()
        gevent.sleep(0.1)
        assert warm.ends == []
        assert not warm.tunnel.stream.connection.awaits_pong  # type: ignore[union-attr]
        warm.tunnel.close(Reason.EXPIRED)


class TestWithTlsOnly:
    """A connection as a pool at level ``tls`` keeps it: HTTP/2 has begun, no CONNECT was sent."""

    @pytest.fixture
    def secured(self, gateway: Http2Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Warm, Opened]]:
        monkeypatch.setattr(http2_stream, "PING_EVERY_S", 0.3)
        gateway.plays(gateway.does())
        opened = Opened(gateway.fake)
        warm = Warm.__new__(Warm)
        warm.ends, warm.tunnel = [], opened.connector.secure()
        warm.edge = gateway.edge()
        warm.tunnel.keep_warm(warm.ends.append)
        yield warm, opened
        warm.tunnel.close(Reason.ABORTED)

    def test_connection_is_pinged_and_then_carries_the_connect(self, secured: tuple[Warm, Opened]) -> None:
        warm, opened = secured
        with reading(warm.edge):
            wait_until(lambda: warm.edge.pings >= 3)
        assert warm.ends == []
        accepting = gevent.Greenlet.spawn(warm.edge.accept)
        assert opened.connector.open(warm.tunnel) is warm.tunnel
        accepting.get(timeout=5)

    @pytest.mark.parametrize(
        "end", [lambda edge: edge.go_away(0, 0), lambda edge: edge.connection.finish()], ids=["goaway", "finish"]
    )
    def test_end_of_the_connection_is_reported(
        self, secured: tuple[Warm, Opened], end: Callable[[Http2Edge], None]
    ) -> None:
        warm, _ = secured
        end(warm.edge)
        wait_until(lambda: warm.ends)


@pytest.fixture
def bench(gateway: Http2Gateway) -> Iterator[Callable[..., Bench]]:
    """Start a forwarder over HTTP/2 with changes to its route."""
    running: list[Bench] = []

    def start(**changes: Any) -> Bench:
        running.append(Bench(gateway.fake, **changes))
        return running[-1]

    yield start
    for started in running:
        started.close()


class TestSession:
    def test_half_close_reaches_the_gateway_and_the_answer_the_client(
        self, bench: Callable[..., Bench], gateway: Http2Gateway
    ) -> None:
        here = bench()
        client = here.connect()
        client.sendall(b"question")
        client.shutdown(cooperative.SHUT_WR)
        edge = gateway.edge()
        edge.read_until(lambda: edge.has_ended)
        assert edge.received == b"question"
        edge.send(b"answer", end=True)
        assert read(client) == b"answer"
        assert ending(here.line()) == ("session.closed", "gateway", "finished")

    def test_half_close_is_not_carried_where_the_route_forbids_it(
        self, bench: Callable[..., Bench], gateway: Http2Gateway
    ) -> None:
        here = bench(half_close="linger")
        client = here.connect()
        client.sendall(b"question")
        client.shutdown(cooperative.SHUT_WR)
        edge = gateway.edge()
        edge.read_until(lambda: edge.received)
        with reading(edge):
            edge.send(b"answer")
            assert read(client, 6) == b"answer"
            gevent.sleep(0.05)
            assert not edge.has_ended
            edge.end()
            assert read(client) == b""

    def test_close_by_the_client_ends_the_gateways_side_after_its_last_bytes(
        self, bench: Callable[..., Bench], gateway: Http2Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tunnel_module, "GOODBYE_TIMEOUT_S", 0.0)
        here = bench()
        client = here.connect()
        client.sendall(b"last words")
        client.close()
        edge = gateway.edge()
        edge.read_until(lambda: edge.has_ended)
        assert edge.received == b"last words"
        wait_until(here.lines)
        assert here.forwarder.session_count == 1, "it waits for the destination's end"
        edge.end()
        assert ending(here.line()) == ("session.closed", "client", "finished")
        edge.read_until(lambda: edge.left_with is not None)
        assert (edge.reset_with, edge.left_with) == (None, Code.NO_ERROR)

    def test_destination_that_ignores_the_end_is_reset_after_a_while(
        self, bench: Callable[..., Bench], gateway: Http2Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tunnel_module, "HTTP2_GOODBYE_TIMEOUT_S", 0.05)
        here = bench()
        client = here.connect()
        client.close()
        edge = gateway.edge()
        edge.read_until(lambda: edge.left_with is not None)
        assert (edge.has_ended, edge.reset_with) == (True, Code.CANCEL)

    @pytest.mark.parametrize(
        ("code", "reason", "cause"),
        [
            (Code.CONNECT_ERROR, "aborted", "reset by the gateway: CONNECT_ERROR"),
            (Code.INTERNAL_ERROR, "lost", "reset by the gateway: INTERNAL_ERROR"),
            (Code.NO_ERROR, "lost", "reset by the gateway: NO_ERROR"),
            (99, "lost", "reset by the gateway: error 99"),
        ],
    )
    def test_reset_is_passed_on_to_the_client_and_its_code_is_logged(
        self, bench: Callable[..., Bench], gateway: Http2Gateway, code: int, reason: str, cause: str
    ) -> None:
        here = bench()
        client = here.connect()
        client.sendall(b"x")
        edge = gateway.edge()
        edge.send(b"before the end")
        edge.reset(code)
        assert read(client, 14) == b"before the end"
        assert reset_soon(client)
        line = here.line()
        assert ending(line) == ("session.closed", "gateway", reason)
        assert line["cause"] == cause

    @pytest.mark.parametrize(
        ("end", "cause"),
        [
            (lambda edge: edge.go_away(Code.ENHANCE_YOUR_CALM), "the gateway goes away: ENHANCE_YOUR_CALM"),
            (lambda edge: edge.connection.finish(), "closed by the gateway in the middle of the tunnel"),
            (lambda edge: edge.connection.fin(), "closed without close_notify"),
            (lambda edge: edge.connection.reset(), "connection reset by peer"),
            (lambda edge: edge.send_raw(BROKEN), "the gateway breaks HTTP/2: PING of 5 bytes"),
        ],
        ids=["goaway", "finish", "fin", "tcp_reset", "broken"],
    )
    def test_end_without_end_stream_is_never_an_orderly_one(
        self, bench: Callable[..., Bench], gateway: Http2Gateway, end: Callable[[Http2Edge], None], cause: str
    ) -> None:
        here = bench()
        client = here.connect()
        client.sendall(b"x")
        end(gateway.edge())
        assert reset_soon(client)
        line = here.line()
        assert ending(line) == ("session.closed", "gateway", "lost")
        assert line["cause"] == cause

    def test_session_finishes_after_an_orderly_goaway(self, bench: Callable[..., Bench], gateway: Http2Gateway) -> None:
        here = bench()
        client = here.connect()
        client.sendall(b"one")
        edge = gateway.edge()
        edge.send_raw(frame(Kind.GOAWAY, 0, 0, bytes.fromhex("7fffffff00000000")))
        edge.send(b"and two", end=True)
        assert read(client) == b"and two"
        assert ending(here.line()) == ("session.closed", "gateway", "finished")

    def test_gateway_that_breaks_the_protocol_gets_the_reason(
        self, bench: Callable[..., Bench], gateway: Http2Gateway
    ) -> None:
        here = bench()
        client = here.connect()
        edge = gateway.edge()
        edge.send_raw(BROKEN)
        edge.read_until(lambda: edge.left_with is not None)
        assert edge.left_with == Code.FRAME_SIZE_ERROR
        assert reset_soon(client)

    def test_upload_stalls_and_resumes_with_the_gateways_window(
        self, bench: Callable[..., Bench], gateway: Http2Gateway
    ) -> None:
        body = b"".join(pseudo_random(1, 2 * MIB))
        here = bench()
        client = here.connect()
        sending = gevent.Greenlet.spawn(client.sendall, body)
        edge = gateway.edge()
        edge.updates_window = False
        edge.read_until(lambda: len(edge.received) == 65_535)
        with reading(edge):
            gevent.sleep(0.05)
            assert len(edge.received) == 65_535, "no more than the window"
            edge.h2.acknowledge_received_data(65_535, 1)
            edge.updates_window = True
            edge.push()
            wait_until(lambda: len(edge.received) == len(body), 30)
        sending.get(timeout=5)
        assert edge.received == body

    @pytest.mark.parametrize("window", [1, 1000, 65_535, 2**31 - 1])
    def test_upload_arrives_unchanged_through_any_window(
        self, bench: Callable[..., Bench], gateway: Http2Gateway, window: int
    ) -> None:
        gateway.plays(gateway.accepts(window))
        body = b"".join(pseudo_random(window, min(window * 200, 3 * MIB)))
        here = bench()
        client = here.connect()
        sending = gevent.Greenlet.spawn(lambda: (client.sendall(body), client.shutdown(cooperative.SHUT_WR)))
        edge = gateway.edge()
        edge.read_until(lambda: edge.has_ended)
        sending.get(timeout=5)
        assert edge.received == body

    def test_reset_ends_an_upload_that_waits_for_the_window(
        self, bench: Callable[..., Bench], gateway: Http2Gateway
    ) -> None:
        here = bench()
        client = here.connect()
        sending = gevent.Greenlet.spawn(client.sendall, bytes(70_000))
        edge = gateway.edge()
        edge.updates_window = False
        edge.read_until(lambda: len(edge.received) == 65_535)
        edge.reset(Code.CANCEL)
        assert reset_soon(client)
        sending.join(5)
        assert ending(here.line()) == ("session.closed", "gateway", "lost")

    def test_client_that_does_not_read_stalls_the_gateway(
        self, bench: Callable[..., Bench], gateway: Http2Gateway
    ) -> None:
        """The window has room for all bytes, but the agent reads none that it cannot deliver."""
        body = b"".join(pseudo_random(3, 48 * MIB))
        here = bench()
        client = here.connect()
        edge = gateway.edge()
        sending = gevent.Greenlet.spawn(edge.send, body, end=True)
        (session,) = here.forwarder._sessions.values()
        wait_until(lambda: session.moved[1] > 0)
        moved = -1
        while moved != session.moved[1]:  # until the transfer stalls
            moved = session.moved[1]
            gevent.sleep(0.2)
        assert moved < 16 * MIB, "what the kernel's buffers and the read-ahead take"
        assert not sending.ready()
        assert read(client) == body
        sending.get(timeout=5)

    def test_flooding_gateway_is_disconnected(self, bench: Callable[..., Bench], gateway: Http2Gateway) -> None:
        here = bench()
        client = here.connect()
        edge = gateway.edge()
        flooding = gevent.Greenlet.spawn(edge.send_raw, frame(Kind.PING, 1, 0, bytes(8)) * 200_000)
        assert reset_soon(client)
        line = here.line()
        assert line["cause"] == "the gateway breaks HTTP/2: 1000 frames in a row that bring nothing"
        flooding.join(5)
