"""Dials a gateway: addresses, TCP, a forward proxy where one is configured, TLS."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import gevent

from pomagent.errors import GatewayTimedOut, GatewayUnreachable, GatewayUntrusted, GatewayUnusable
from pomagent.gateway.address_health import AddressHealth
from pomagent.gateway.forward_proxy import carry_out
from pomagent.gateway.handshake_limit import HandshakeLimit
from pomagent.gateway.health import GatewayHealth
from pomagent.gateway.hop import Hop, gateway_peer, is_certificate_error, proxy_peer
from pomagent.protocol.forward_proxy import ProxyFailures, negotiate
from pomagent.runtime.deadline import Deadline
from pomagent.settings import ForwardProxy, Gateway, HostPort
from pomagent.transport.happy_eyeballs import interleave
from pomagent.transport.http2_stream import Http2Stream, TunnelStream, new_frames_scratch
from pomagent.transport.resolver import Resolver
from pomagent.transport.stream import SCRATCH_BYTES, SocketStream
from pomagent.transport.tls_context import H2
from pomagent.transport.tls_resumption import TlsSessions
from pomagent.transport.tls_stream import TlsStream

MISMATCH_PAUSE_S = 0.5
"""Seconds before a dial with a rejected certificate is repeated once: an edge that loads a certificate briefly shows a
default one (wire contract §3.2)."""

MAX_TARGETS = 4
"""Maximum gateway addresses to try through a ``socks5`` proxy, one after the other, each with its own timeout."""


@dataclass(slots=True)
class Timings:
    """Milliseconds of each phase of opening a tunnel. None for a phase that did not happen."""

    dns_ms: float | None = None
    tcp_ms: float | None = None
    """Time until bytes reach the gateway, including a forward proxy's negotiation."""
    tls_ms: float | None = None
    connect_ms: float | None = None

    @property
    def fields(self) -> dict[str, float | None]:
        """Fields of a log event: durations of TCP, TLS and CONNECT, rounded to 0.1 ms."""
        durations = {"tcp_ms": self.tcp_ms, "tls_ms": self.tls_ms, "connect_ms": self.connect_ms}
        return {name: None if duration is None else round(duration, 1) for name, duration in durations.items()}


@dataclass(slots=True)
class Secured:
    """A stream to the gateway, ready for a CONNECT."""

    stream: TunnelStream
    timings: Timings = field(default_factory=Timings)


class Dialer:
    """Opens streams to one gateway, with a limit on concurrent handshakes."""

    def __init__(
        self, gateway: Gateway, context: ssl.SSLContext | None, resolver: Resolver, scratch: memoryview | None = None,
        proxy_context: ssl.SSLContext | None = None, health: GatewayHealth | None = None,
        handshake_limit: HandshakeLimit | None = None,
    ) -> None:  # fmt: skip
        """``context`` is None for a gateway without TLS, ``proxy_context`` without an ``https`` proxy.

        All dialers of the hub may share ``scratch``, all dialers of one address ``handshake_limit`` and ``health``.
        """
        self.gateway = gateway
        self._context = context
        self._proxy_context = proxy_context
        self._resolver = resolver
        self._scratch = scratch or memoryview(bytearray(SCRATCH_BYTES))
        self._outer_scratch = memoryview(bytearray(SCRATCH_BYTES if proxy_context else 0))  # TLS within TLS uses both
        self._health = health
        self._addresses = AddressHealth()
        self.handshake_limit = handshake_limit or HandshakeLimit(gateway.max_dials)
        self._sessions = TlsSessions()
        self._frames = new_frames_scratch() if gateway.transport == "http2" else memoryview(b"")
        self.transport: Literal["http1", "http2"] | None = None
        """Transport of the last dial. None before the first."""
        self._has_logged_downgrade = False

    def retry(self) -> None:
        """Forget failed addresses. Does not block."""
        self._addresses.clear()

    @property
    def avoided(self) -> list[str]:
        """Addresses that failed recently and come last."""
        return self._addresses.avoided(time.monotonic())

    def dial(self, destination: str, on_tls: Callable[[], None] = lambda: None, *, urgent: bool = True) -> Secured:
        """Return a secured stream. Blocks.

        Raises GatewayUnreachable, …TimedOut, …Untrusted, …Unusable, …Misbehaved, ProxyRefused.

        ``destination`` appears in error sentences. ``on_tls`` is called once, when the TLS handshake begins.
        Dials that are ``urgent``, because a client waits, begin before others.
        """
        if self.gateway.problem:
            raise GatewayUnusable(
                self.gateway.problem, gateway=str(self.gateway.address), destination=destination, phase="tls"
            )
        has_begun = False

        def begin_tls() -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                on_tls()

        try:
            return self._dial_once(destination, begin_tls, urgent=urgent)
        except GatewayUntrusted as error:
            if not is_certificate_error(error):
                raise
        gevent.sleep(MISMATCH_PAUSE_S)
        return self._dial_once(destination, begin_tls, urgent=urgent)

    def _dial_once(self, destination: str, on_tls: Callable[[], None], *, urgent: bool) -> Secured:
        with self.handshake_limit.slot(urgent=urgent):
            timings = Timings()
            gateway = Hop(gateway_peer(self.gateway), self.gateway, destination, self._addresses)
            proxy = self.gateway.proxy
            if proxy is None:
                transport: SocketStream | TlsStream = self._reach(gateway, timings)
            else:
                transport = self._reach_through(proxy, gateway, destination, timings)
            if self._context is None:
                self._reached({}, timings)
                self.transport = "http1"
                return Secured(transport, timings)
            try:
                on_tls()
                began = time.monotonic()
                stream = self._secure(gateway, transport, self._context)
                timings.tls_ms = _since(began)
            except BaseException:
                transport.close()
                raise
            self._reached({} if stream.was_resumed else stream.peer_certificate(), timings)
            return Secured(self._with_transport(stream), timings)

    def _with_transport(self, stream: TlsStream) -> TunnelStream:
        """Return the tunnel's stream: the configured transport if the gateway agreed to it, else HTTP/1.1."""
        wanted = self.gateway.transport
        if wanted == "http2" and stream.application_protocol == H2:
            self.transport = "http2"
            return Http2Stream(stream, self._frames)
        if wanted == "http2" and not self._has_logged_downgrade and self._health is not None:
            self._has_logged_downgrade = True
            self._health.downgraded(self.gateway.name)
        self.transport = "http1"
        return stream

    def accepted(self, stream: TunnelStream, connect_ms: float | None = None) -> None:
        """Record an accepted CONNECT, and keep the TLS session so that the next handshake can resume it."""
        if self._health is not None:
            self._health.counts.took(connect=connect_ms)
        tls = stream.transport if isinstance(stream, Http2Stream) else stream
        if isinstance(tls, TlsStream):
            self._sessions.learn(tls, time.monotonic())

    def answered(self, status: int, date: str) -> None:
        """Record status and Date header of an answer to a CONNECT."""
        if self._health is not None:
            self._health.counts.answered(status)
            self._health.note_date(date)

    @property
    def clock_offset_s(self) -> float | None:
        """Gateway clock minus local clock, in seconds. None before the first answer."""
        return self._health.clock_offset_s if self._health is not None else None

    def _secure(self, gateway: Hop, transport: SocketStream | TlsStream, context: ssl.SSLContext) -> TlsStream:
        now = time.monotonic()
        session = self._sessions.to_resume(now)
        stream = None
        try:
            stream = gateway.secure(transport, context, self._scratch, session)
        finally:
            if session is not None and not (stream and stream.was_resumed):
                self._sessions.rejected(now)
        return stream

    def _reached(self, certificate: Mapping[str, object], timings: Timings) -> None:
        if self._health is not None:
            self._health.counts.took(dns=timings.dns_ms, tcp=timings.tcp_ms, tls=timings.tls_ms)
            self._health.note_certificate(certificate)
            self._health.reached()

    def _reach(self, hop: Hop, timings: Timings) -> SocketStream:
        began = time.monotonic()
        addresses = hop.look_up(self._resolver)
        timings.dns_ms = _since(began)
        began = time.monotonic()
        stream = hop.connect(addresses)
        timings.tcp_ms = _since(began)
        return stream

    # --- through a forward proxy ----------------------------------------------------------------------------------

    def _reach_through(
        self, proxy: ForwardProxy, gateway: Hop, destination: str, timings: Timings
    ) -> SocketStream | TlsStream:
        """Return a connection through the proxy to the first gateway address that the proxy reaches. Blocks."""
        failures = ProxyFailures(proxy, str(self.gateway.address), destination)
        began = time.monotonic()
        *others, last = self._targets(proxy, gateway)
        for target in others:
            try:
                return self._connect_through(proxy, target, failures, timings, began)
            except (GatewayUnreachable, GatewayTimedOut):
                pass  # a fault of the proxy itself fails the last address too
        return self._connect_through(proxy, last, failures, timings, began)

    def _targets(self, proxy: ForwardProxy, gateway: Hop) -> list[HostPort]:
        """Return the gateway's name for the proxy to resolve, or with ``socks5`` the addresses resolved here."""
        if proxy.scheme != "socks5":
            return [self.gateway.dial_address]
        addresses = interleave(gateway.look_up(self._resolver))
        return [HostPort(*sockaddr) for _, sockaddr in addresses[:MAX_TARGETS]]

    def _connect_through(
        self, proxy: ForwardProxy, target: HostPort, failures: ProxyFailures, timings: Timings, began: float
    ) -> SocketStream | TlsStream:
        hop = Hop(proxy_peer(proxy), self.gateway, failures.destination, self._addresses)
        transport: SocketStream | TlsStream = self._reach(hop, timings)
        try:
            if self._proxy_context is not None:
                transport = hop.secure(transport, self._proxy_context, self._outer_scratch)
            deadline = Deadline(self.gateway.connect_timeout_s)
            carry_out(transport, negotiate(target, failures), failures, deadline)
        except BaseException:
            transport.close()
            raise
        timings.tcp_ms = _since(began)
        return transport


def _since(began: float) -> float:
    return (time.monotonic() - began) * 1000
