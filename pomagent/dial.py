"""From a gateway's name to a stream: addresses, TCP to the first that answers, TLS."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from gevent.lock import BoundedSemaphore
from gevent.pool import Group
from gevent.queue import Empty, Queue

from pomagent import tcp
from pomagent.deadline import Deadline
from pomagent.errors import GatewayMisbehaved, GatewayTimedOut, GatewayUnreachable, GatewayUntrusted, StreamLost
from pomagent.resolver import Address, LookupFailed, Resolver
from pomagent.settings import Gateway
from pomagent.stream import SCRATCH_BYTES, SocketStream
from pomagent.tls_stream import TlsStream

STAGGER_S = 0.25
"""Head start of one address over the next (RFC 8305 §5)."""

ALERTS_FOR_A_CERTIFICATE = ("CERTIFICATE_REQUIRED", "UNKNOWN_CA", "BAD_CERTIFICATE", "HANDSHAKE_FAILURE")
"""What a gateway says that wants a client certificate, or another one (wire contract §3.2)."""

ALERTS_OF_AN_OLD_GATEWAY = ("UNSUPPORTED_PROTOCOL", "PROTOCOL_VERSION")
_REMEDIES = {
    errno.EMFILE: "raise LimitNOFILE of the service",
    errno.ENFILE: "raise fs.file-max of this host",
    errno.ENETUNREACH: "has this host a route to it?",
    errno.EHOSTUNREACH: "has this host a route to it?",
    errno.EADDRNOTAVAIL: "are all local ports in use?",
}


@dataclass(slots=True)
class Timings:
    """What each phase of opening a tunnel took, in milliseconds; None for one that did not happen."""

    dns_ms: float | None = None
    tcp_ms: float | None = None
    tls_ms: float | None = None
    connect_ms: float | None = None


@dataclass(slots=True)
class Secured:
    """A stream to the gateway that is ready for a CONNECT."""

    stream: SocketStream | TlsStream
    timings: Timings = field(default_factory=Timings)


class Dialer:
    """Opens streams to one gateway, a bounded number at a time."""

    def __init__(
        self, gateway: Gateway, context: ssl.SSLContext | None, resolver: Resolver, scratch: memoryview | None = None
    ) -> None:
        """``context`` is None for a gateway without TLS."""
        self.gateway = gateway
        self._context = context
        self._resolver = resolver
        self._scratch = scratch or memoryview(bytearray(SCRATCH_BYTES))
        self._places = BoundedSemaphore(gateway.max_dials)

    def dial(self, destination: str, on_tls: Callable[[], None] = lambda: None) -> Secured:
        """Return a secured stream. Blocks. Raises GatewayUnreachable, GatewayTimedOut, GatewayUntrusted, …Misbehaved.

        ``destination`` is for the errors' sentences; ``on_tls`` is called when TCP stands and TLS begins.
        """
        with self._places:
            attempt = _Attempt(self.gateway, destination)
            addresses = attempt.look_up(self._resolver)
            transport = attempt.connect(addresses)
            if self._context is None:
                return Secured(transport, attempt.timings)
            try:
                on_tls()
                stream = TlsStream(transport, self._context, self.gateway.address.host, self._scratch)
                attempt.handshake(stream)
            except BaseException:
                transport.close()
                raise
            return Secured(stream, attempt.timings)


class _Attempt:
    """One dial: each phase has its budget, and its failures in the words of ``errors``."""

    def __init__(self, gateway: Gateway, destination: str) -> None:
        self._gateway = gateway
        self._named = {"gateway": str(gateway.address), "destination": destination}
        self.timings = Timings()

    def look_up(self, resolver: Resolver) -> list[Address]:
        began = time.monotonic()
        try:
            addresses = resolver.resolve(self._gateway.dial_address, self._gateway.connect_timeout_s)
        except LookupFailed as error:
            raise GatewayUnreachable(
                f"{error}; check the name and this host's resolver", phase="dns", **self._named
            ) from error
        self.timings.dns_ms = _since(began)
        return addresses

    def connect(self, addresses: list[Address]) -> SocketStream:
        began = time.monotonic()
        deadline = Deadline(self._gateway.connect_timeout_s)
        try:
            stream = _connect_first(interleave(addresses), deadline)
        except TimeoutError as error:
            raise GatewayTimedOut(
                f"no TCP connection to {self._where} within {deadline.budget_s:g} s; is a firewall in between?",
                phase="tcp", **self._named,
            ) from error  # fmt: skip
        except OSError as error:
            remedy = _REMEDIES.get(error.errno or 0, "is the gateway up?")
            raise GatewayUnreachable(
                f"no TCP connection to {self._where}: {(error.strerror or str(error)).lower()}; {remedy}",
                phase="tcp", **self._named,
            ) from error  # fmt: skip
        self.timings.tcp_ms = _since(began)
        return stream

    def handshake(self, stream: TlsStream) -> None:
        began = time.monotonic()
        deadline = Deadline(self._gateway.tls_timeout_s)
        try:
            while not stream.handshake_step():
                if not stream.wait_readable(deadline.remaining_s):
                    raise GatewayTimedOut(
                        f"no TLS handshake with {self._where} within {deadline.budget_s:g} s; "
                        "is it overloaded, or something else that listens there?",
                        phase="tls", **self._named,
                    )  # fmt: skip
        except ssl.SSLCertVerificationError as error:
            raise self._untrusted(f"its certificate is not accepted: {error.verify_message.rstrip('.')}") from error
        except ssl.SSLError as error:
            raise self.tls_failure(error.reason or str(error)) from error
        except StreamLost as error:
            raise GatewayUnreachable(
                f"connection lost in the TLS handshake ({error}); is the gateway restarting?",
                phase="tls", **self._named,
            ) from error  # fmt: skip
        self.timings.tls_ms = _since(began)

    def tls_failure(self, reason: str) -> GatewayUntrusted | GatewayUnreachable | GatewayMisbehaved:
        words = reason.lower().replace("_", " ")
        if any(alert in reason for alert in ALERTS_FOR_A_CERTIFICATE) and "ALERT" in reason:
            return certificate_wanted(words, phase="tls", **self._named)
        if "EOF" in reason:
            return GatewayUnreachable(
                "closed in the TLS handshake; is the gateway restarting?", phase="tls", **self._named
            )
        if any(word in reason for word in ALERTS_OF_AN_OLD_GATEWAY):
            return GatewayMisbehaved(
                f"no TLS 1.2 or newer there ({words}); have the gateway offer it", phase="tls", **self._named
            )
        return GatewayMisbehaved(
            f"no TLS there ({words}); check scheme and port of the gateway", phase="tls", **self._named
        )

    def _untrusted(self, what: str) -> GatewayUntrusted:
        return GatewayUntrusted(
            f"{what}; set ca_file for a private CA, or the URL to a name that the certificate covers",
            phase="tls", **self._named,
        )  # fmt: skip

    @property
    def _where(self) -> str:
        return str(self._gateway.dial_address)


def certificate_wanted(words: str, *, phase: str, gateway: str, destination: str) -> GatewayUntrusted:
    """The error for a gateway that asks for a client certificate, or refuses the one it got."""
    return GatewayUntrusted(
        f"the gateway wants a client certificate it trusts ({words}); set client_cert_file and client_key_file",
        gateway=gateway, destination=destination, phase=phase,
    )  # fmt: skip


def interleave(addresses: list[Address]) -> list[Address]:
    """Alternate the families, beginning with the resolver's first choice (RFC 8305 §4)."""
    first = [a for a in addresses if a[0] == addresses[0][0]]
    other = [a for a in addresses if a[0] != addresses[0][0]]
    mixed: list[Address] = []
    for index in range(max(len(first), len(other))):
        mixed += first[index : index + 1] + other[index : index + 1]
    return mixed


def _connect_first(addresses: list[Address], deadline: Deadline) -> SocketStream:
    """The first connection that stands, later addresses joining while earlier ones are silent (RFC 8305 §5).

    Raises the first OSError when all fail, TimeoutError when the budget is over.
    """
    if len(addresses) == 1:
        return _connect(addresses[0], deadline)
    untried, failures = deque(addresses), list[OSError]()
    attempts, outcomes = Group(), Queue()
    try:
        while len(failures) < len(addresses) and not deadline.is_over:
            if untried:
                attempts.spawn(_race, untried.popleft(), deadline, outcomes)
            try:
                outcome = outcomes.get(
                    timeout=min(STAGGER_S, deadline.remaining_s) if untried else deadline.remaining_s
                )
            except Empty:
                continue
            if isinstance(outcome, SocketStream):
                return outcome
            failures.append(outcome)
        raise failures[0] if len(failures) == len(addresses) else TimeoutError()
    finally:
        attempts.kill()
        while not outcomes.empty():
            late = outcomes.get_nowait()
            if isinstance(late, SocketStream):
                late.close()


def _race(address: Address, deadline: Deadline, outcomes: Queue) -> None:
    try:
        outcomes.put(_connect(address, deadline))
    except OSError as error:
        outcomes.put(error)


def _connect(address: Address, deadline: Deadline) -> SocketStream:
    family, sockaddr = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    stream = SocketStream(sock)
    try:
        tcp.prepare(sock)
        tcp.limit_silence(sock, on=True)
        _check(sock.connect_ex(sockaddr))
        _check(0 if stream.wait_writable(deadline.remaining_s) else errno.ETIMEDOUT)
        _check(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    except BaseException:
        stream.close()
        raise
    return stream


def _check(error: int) -> None:
    if error and error != errno.EINPROGRESS:
        raise OSError(error, os.strerror(error))


def _since(began: float) -> float:
    return (time.monotonic() - began) * 1000
