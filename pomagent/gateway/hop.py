"""Name, TCP and TLS of one party on the way: the gateway, or the forward proxy before it; each phase has its budget."""

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
from pomagent.gateway.address_health import AddressBook
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
    errno.ENETUNREACH: "has this host a route to it?",
    errno.EHOSTUNREACH: "has this host a route to it?",
    errno.EADDRNOTAVAIL: "are all local ports in use?",
}


@dataclass(frozen=True, slots=True)
class Party:
    """Whom a hop leads to, and how sentences speak of it."""

    address: HostPort
    server_name: str
    """SNI, and the name that the certificate must cover."""
    noun: str
    where: str
    setting: str
    """What to mend where the certificate does not cover the name."""
    is_proxy: bool = False


def gateway_party(gateway: Gateway) -> Party:
    dialled = gateway.dial_address
    return Party(dialled, gateway.address.host, "gateway", str(dialled), "the URL")


def proxy_party(proxy: ForwardProxy) -> Party:
    where = f"the forward proxy {proxy.address}"
    return Party(proxy.address, proxy.address.host, "forward proxy", where, "forward_proxy", is_proxy=True)


class Hop:
    """One try to reach a party; its failures in the words of ``errors``."""

    def __init__(self, party: Party, gateway: Gateway, destination: str, book: AddressBook) -> None:
        """``book`` remembers which addresses failed, from one try to the next."""
        self._book = book
        self._dialled: tuple[str, int] | None = None
        self._party = party
        self._gateway = gateway
        self._named = {"gateway": str(gateway.address), "destination": destination}

    def look_up(self, resolver: Resolver) -> list[Address]:
        """Blocks. Raises GatewayUnreachable."""
        try:
            return resolver.resolve(self._party.address, self._gateway.connect_timeout_s)
        except LookupFailed as error:
            raise GatewayUnreachable(
                f"{error}; check the name and this host's resolver", phase=self._phase("dns"), **self._named
            ) from error

    def connect(self, addresses: list[Address]) -> SocketStream:
        """Blocks. Raises GatewayTimedOut, GatewayUnreachable."""
        where = self._party.where
        deadline = Deadline(self._gateway.connect_timeout_s)
        try:
            in_order = self._book.order(interleave(addresses), time.monotonic())
            stream, address = connect_first(in_order, deadline, self._passed_over)
        except TimeoutError as error:
            raise GatewayTimedOut(
                f"no TCP connection to {where} within {deadline.budget_s:g} s; is a firewall in between?",
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
            return f"start the {self._party.noun}, or mend {self._party.setting}"
        return _REMEDIES.get(number or 0, f"is the {self._party.noun} up?")

    def _passed_over(self, address: Address) -> None:
        """It failed, or was silent while another one answered."""
        self._book.failed(address[1], time.monotonic())

    def secure(
        self, transport: SocketStream | TlsStream, context: ssl.SSLContext, scratch: memoryview,
        session: ssl.SSLSession | None = None,
    ) -> TlsStream:  # fmt: skip
        """TLS over a transport, which is its owner's to close if this fails. Blocks. Raises TunnelError."""
        try:
            stream = self._handshake(lambda: self._wrap(transport, context, scratch, session))
        except TunnelError:
            if self._dialled is not None:  # TCP stood, and what answers there is of no use
                self._book.failed(self._dialled, time.monotonic())
            raise
        if self._dialled is not None:
            self._book.worked(self._dialled)
        return stream

    def _wrap(
        self, transport: SocketStream | TlsStream, context: ssl.SSLContext, scratch: memoryview,
        session: ssl.SSLSession | None,
    ) -> TlsStream:  # fmt: skip
        """Through memory where OpenSSL cannot have the socket, or records are small, as those of HTTP/2 are."""
        name = self._party.server_name
        if isinstance(transport, SocketStream) and self._gateway.transport != "http2":
            return TlsOverSocket(transport, context, name, session)
        return TlsOverMemory(transport, context, name, scratch, session)

    def _handshake(self, wrap: Callable[[], TlsStream]) -> TlsStream:
        noun = self._party.noun
        deadline = Deadline(self._gateway.tls_timeout_s)
        try:
            stream = wrap()
            while not stream.handshake_step():
                if not stream.wait_readable(deadline.remaining_s):
                    raise self._timed_out_in_tls(deadline)
        except ssl.SSLCertVerificationError as error:
            what = f"{self._its} certificate is not accepted: {why_untrusted(error, self._party.setting, time.time())}"
            raise GatewayUntrusted(what, phase=self._phase("tls"), **self._named) from error
        except ssl.SSLError as error:
            raise self._tls_failure(error.reason or str(error)) from error
        except StreamLost as error:
            raise GatewayUnreachable(
                f"connection lost in the TLS handshake ({error}); is the {noun} restarting?",
                phase=self._phase("tls"), **self._named,
            ) from error  # fmt: skip
        return stream

    def _timed_out_in_tls(self, deadline: Deadline) -> GatewayTimedOut:
        return GatewayTimedOut(
            f"no TLS handshake with {self._party.where} within {deadline.budget_s:g} s; "
            "is it overloaded, or something else that listens there?",
            phase=self._phase("tls"), **self._named,
        )  # fmt: skip

    def _tls_failure(self, reason: str) -> TunnelError:
        words, noun, phase = reason.lower().replace("_", " "), self._party.noun, self._phase("tls")
        if demands_certificate(reason) and "ALERT" in reason:
            if self._party.is_proxy:
                return GatewayUntrusted(
                    f"{self._party.where} wants a client certificate ({words}), which it does not get; have it ask for "
                    "a user and a password instead",
                    phase=phase, **self._named,
                )  # fmt: skip
            return certificate_wanted(words, phase=phase, **self._named)
        if "EOF" in reason:
            return GatewayUnreachable(
                f"closed in the TLS handshake; is the {noun} restarting?", phase=phase, **self._named
            )
        if is_old_version(reason):
            return GatewayMisbehaved(
                f"no TLS 1.2 or newer there ({words}); have the {noun} offer it", phase=phase, **self._named
            )
        return GatewayMisbehaved(
            f"no TLS there ({words}); check scheme and port of the {noun}", phase=phase, **self._named
        )

    @property
    def _its(self) -> str:
        return f"{self._party.where}: its" if self._party.is_proxy else "its"

    def _phase(self, of_the_gateway: str) -> str:
        return "proxy" if self._party.is_proxy else of_the_gateway


def certificate_wanted(words: str, *, phase: str, gateway: str, destination: str) -> GatewayUntrusted:
    """The error for a gateway that asks for a client certificate, or refuses the one it got."""
    return GatewayUntrusted(
        f"the gateway wants a client certificate it trusts ({words}); set client_cert_file and client_key_file",
        gateway=gateway, destination=destination, phase=phase,
    )  # fmt: skip


def is_mismatch(error: TunnelError) -> bool:
    """Whether a certificate was not accepted here: for a moment a gateway that loads another one shows a wrong one."""
    return isinstance(error.__cause__, ssl.SSLCertVerificationError)
