"""Name lookup, TCP and TLS to one peer: the gateway, or a forward proxy in front of it. Each phase has its timeout."""

from __future__ import annotations

import errno
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from pomagent.errors import (
    GatewayMisbehaved,
    GatewayTimedOut,
    GatewayUnreachable,
    GatewayUntrusted,
    StreamLost,
    TunnelError,
)
from pomagent.gateway.address_health import AddressHealth
from pomagent.protocol.tls_alerts import demands_certificate, is_old_version
from pomagent.runtime.deadline import Deadline
from pomagent.settings import ForwardProxy, Gateway, HostPort
from pomagent.transport.happy_eyeballs import connect_first, interleave
from pomagent.transport.resolver import Address, LookupFailed, Resolver
from pomagent.transport.stream import SocketStream
from pomagent.transport.tls_context import why_untrusted
from pomagent.transport.tls_over_memory import TlsOverMemory
from pomagent.transport.tls_over_socket import TlsOverSocket
from pomagent.transport.tls_stream import TlsStream

_REMEDIES = {
    errno.EMFILE: "raise LimitNOFILE of the service",
    errno.ENFILE: "raise fs.file-max of this host",
    errno.ENETUNREACH: "check this host's routing table",
    errno.EHOSTUNREACH: "check this host's routing table",
    errno.EADDRNOTAVAIL: "check whether all local ports are in use",
}


@dataclass(frozen=True, slots=True)
class Peer:
    """The peer that a hop leads to, and its names in error sentences."""

    address: HostPort
    server_name: str
    """SNI, and the name that the certificate must cover."""
    noun: str
    where: str
    setting: str
    """The setting to correct if the certificate does not cover the name."""
    is_proxy: bool = False


def gateway_peer(gateway: Gateway) -> Peer:
    dialled = gateway.dial_address
    return Peer(dialled, gateway.address.host, "gateway", str(dialled), "the URL")


def proxy_peer(proxy: ForwardProxy) -> Peer:
    where = f"the forward proxy {proxy.address}"
    return Peer(proxy.address, proxy.address.host, "forward proxy", where, "forward_proxy", is_proxy=True)


class Hop:
    """One attempt to reach a peer. Its failures are errors with cause and remedy."""

    def __init__(self, peer: Peer, gateway: Gateway, destination: str, health: AddressHealth) -> None:
        """``health`` remembers failed addresses from one attempt to the next."""
        self._health = health
        self._dialled: tuple[str, int] | None = None
        self._peer = peer
        self._gateway = gateway
        self._named = {"gateway": str(gateway.address), "destination": destination}

    def look_up(self, resolver: Resolver) -> list[Address]:
        """Return the peer's addresses. Blocks. Raises GatewayUnreachable."""
        try:
            return resolver.resolve(self._peer.address, self._gateway.connect_timeout_s)
        except LookupFailed as error:
            raise GatewayUnreachable(
                f"{error}; check the name and this host's resolver", phase=self._phase("dns"), **self._named
            ) from error

    def connect(self, addresses: list[Address]) -> SocketStream:
        """Return a TCP connection to the first address that answers. Blocks. Raises GatewayTimedOut, …Unreachable."""
        where = self._peer.where
        deadline = Deadline(self._gateway.connect_timeout_s)
        try:
            in_order = self._health.order(interleave(addresses), time.monotonic())
            stream, address = connect_first(in_order, deadline, self._skipped)
        except TimeoutError as error:
            raise GatewayTimedOut(
                f"no TCP connection to {where} within {deadline.budget_s:g} s; look for a firewall in between",
                phase=self._phase("tcp"), **self._named,
            ) from error  # fmt: skip
        except OSError as error:
            remedy = self._remedy(error.errno)
            raise GatewayUnreachable(
                f"no TCP connection to {where}: {(error.strerror or str(error)).lower()}; {remedy}",
                phase=self._phase("tcp"), **self._named,
            ) from error  # fmt: skip
        self._dialled = address[1]
        return stream

    def _remedy(self, number: int | None) -> str:
        if number == errno.ECONNREFUSED:
            return f"start the {self._peer.noun}, or mend {self._peer.setting}"
        return _REMEDIES.get(number or 0, f"is the {self._peer.noun} up?")

    def _skipped(self, address: Address) -> None:
        """Record an address that failed, or that was silent while another one answered."""
        self._health.failed(address[1], time.monotonic())

    def secure(
        self, transport: SocketStream | TlsStream, context: ssl.SSLContext, scratch: memoryview,
        session: ssl.SSLSession | None = None,
    ) -> TlsStream:  # fmt: skip
        """Return TLS over a transport. Blocks. Raises TunnelError. The caller then closes the transport."""
        try:
            stream = self._handshake(lambda: self._wrap(transport, context, scratch, session))
        except TunnelError:
            if self._dialled is not None:  # an address that accepts TCP without TLS is of no use either
                self._health.failed(self._dialled, time.monotonic())
            raise
        if self._dialled is not None:
            self._health.succeeded(self._dialled)
        return stream

    def _wrap(
        self, transport: SocketStream | TlsStream, context: ssl.SSLContext, scratch: memoryview,
        session: ssl.SSLSession | None,
    ) -> TlsStream:  # fmt: skip
        """Use memory buffers where OpenSSL cannot own the socket, or where records are small, as over HTTP/2."""
        name = self._peer.server_name
        if isinstance(transport, SocketStream) and self._gateway.transport != "http2":
            return TlsOverSocket(transport, context, name, session)
        return TlsOverMemory(transport, context, name, scratch, session)

    def _handshake(self, wrap: Callable[[], TlsStream]) -> TlsStream:
        peer, phase = self._peer, self._phase("tls")
        deadline = Deadline(self._gateway.tls_timeout_s)
        try:
            stream = wrap()
            while not stream.handshake_step():
                if not stream.wait_readable(deadline.remaining_s):
                    raise self._tls_timed_out(deadline)
        except ssl.SSLCertVerificationError as error:
            owner = peer.where if peer.is_proxy else "the gateway"
            what = f"{owner}'s certificate is not accepted: {why_untrusted(error, peer.setting, time.time())}"
            raise GatewayUntrusted(what, phase=phase, **self._named) from error
        except ssl.SSLError as error:
            raise self._tls_failure(error.reason or str(error)) from error
        except StreamLost as error:
            what = f"the connection was lost in the TLS handshake; is the {peer.noun} restarting?"
            raise GatewayUnreachable(what, phase=phase, detail=str(error), **self._named) from error
        return stream

    def _tls_timed_out(self, deadline: Deadline) -> GatewayTimedOut:
        return GatewayTimedOut(
            f"no TLS handshake with {self._peer.where} within {deadline.budget_s:g} s; "
            "is it overloaded, or does another server listen there?",
            phase=self._phase("tls"), **self._named,
        )  # fmt: skip

    def _tls_failure(self, reason: str) -> TunnelError:
        detail, noun, phase = reason.lower().replace("_", " "), self._peer.noun, self._phase("tls")
        if demands_certificate(reason) and "ALERT" in reason:
            if not self._peer.is_proxy:
                return certificate_required(detail, phase=phase, **self._named)
            what = f"{self._peer.where} requires a client certificate; configure it to ask for a user and a password"
            return GatewayUntrusted(what, phase=phase, detail=detail, **self._named)
        if "EOF" in reason:
            what = f"the {noun} closed the connection in the TLS handshake; is it restarting?"
            return GatewayUnreachable(what, phase=phase, **self._named)
        if is_old_version(reason):
            what = f"the {noun} offers no TLS 1.2 or newer; enable it there"
        else:
            what = f"the {noun} does not answer in TLS; check its scheme and port"
        return GatewayMisbehaved(what, phase=phase, detail=detail, **self._named)

    def _phase(self, of_the_gateway: str) -> str:
        return "proxy" if self._peer.is_proxy else of_the_gateway


def certificate_required(detail: str, *, phase: str, gateway: str, destination: str) -> GatewayUntrusted:
    """Return the error for a gateway that requires a client certificate, or rejects the one it got."""
    return GatewayUntrusted(
        "the gateway requires a client certificate that it trusts; set client_cert_file and client_key_file",
        gateway=gateway, destination=destination, phase=phase, detail=detail,
    )  # fmt: skip


def is_certificate_error(error: TunnelError) -> bool:
    """Return whether this host rejected a certificate. A gateway that reloads may briefly show a wrong one."""
    return isinstance(error.__cause__, ssl.SSLCertVerificationError)
