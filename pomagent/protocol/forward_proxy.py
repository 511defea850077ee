"""The negotiation with a forward proxy until it relays to the gateway, and its errors, without I/O.

No error here condemns the route or its credential, because a proxy's answer is not the gateway's.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Protocol

from pomagent.errors import (
    GatewayMisbehaved,
    GatewayTimedOut,
    GatewayUnreachable,
    GatewayUntrusted,
    ProxyRefused,
    TunnelError,
)
from pomagent.protocol.connect import ConnectRequest, Exchange, MalformedAnswer
from pomagent.protocol.socks5 import Malformed, Refusal, Socks5
from pomagent.settings import ForwardProxy, HostPort

PHASE = "proxy"

_UNAVAILABLE = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of a proxy that cannot connect to the gateway, or that is overloaded."""
_NO_TUNNELS = frozenset({400, 404, 405, 501})


class ProxyFailures:
    """Builds the errors of one path through a proxy, each a sentence with its remedy."""

    def __init__(self, proxy: ForwardProxy, gateway: str, destination: str) -> None:
        self.proxy = proxy
        self.destination = destination
        self._gateway = gateway

    def refused(self, what: str) -> ProxyRefused:
        return ProxyRefused(self._sentence(what), **self._named)

    def unreachable(self, what: str) -> GatewayUnreachable:
        return GatewayUnreachable(self._sentence(what), **self._named)

    def timed_out(self, what: str) -> GatewayTimedOut:
        return GatewayTimedOut(self._sentence(what), **self._named)

    def untrusted(self, what: str) -> GatewayUntrusted:
        return GatewayUntrusted(self._sentence(what), **self._named)

    def misbehaved(self, what: str) -> GatewayMisbehaved:
        return GatewayMisbehaved(self._sentence(what), **self._named)

    def garbage(self, why: str) -> GatewayMisbehaved:
        kind = "a SOCKS5" if self.proxy.scheme.startswith("socks") else "an HTTP"
        return self.misbehaved(f"does not answer as {kind} proxy ({why}); check scheme and port of forward_proxy")

    def opened_nothing(self, budget_s: float) -> GatewayTimedOut:
        return self.timed_out(
            f"opened no connection within {budget_s:g} s (connect_timeout_s); check that it can reach the gateway"
        )

    def broke_off(self, why: str) -> GatewayUnreachable:
        return self.unreachable(f"closed the connection ({why}); check that it is up")

    def unanswered(self) -> GatewayUnreachable:
        return self.unreachable("closed the connection without an answer; check that it is up")

    def unconnected(self, target: HostPort, detail: object) -> GatewayUnreachable:
        return self.unreachable(f"cannot connect to {target} ({detail}); check that the proxy can reach the gateway")

    def asks_for_credentials(self, what: str) -> ProxyRefused:
        if self.proxy.credentials is None:
            return self.refused(f"{what}; set a user and a password in forward_proxy_credentials_file")
        return self.refused(f"{what}; mend the user and the password in forward_proxy_credentials_file")

    def _sentence(self, what: str) -> str:
        return f"the forward proxy {self.proxy.address} {what}"

    @property
    def _named(self) -> dict[str, str]:
        return {"gateway": self._gateway, "destination": self.destination, "phase": PHASE}


class Negotiation(Protocol):
    """Bytes to send and bytes received, until the proxy relays."""

    @property
    def is_over(self) -> bool:
        """Whether the proxy relays all further bytes."""

    def pop_outgoing(self) -> bytes:
        """Return the bytes to send now, once."""

    def receive(self, data: bytes) -> None:
        """Process received bytes. ``b""`` is the end of the stream. Raises TunnelError."""


def negotiate(target: HostPort, failures: ProxyFailures) -> Negotiation:
    """Return the negotiation of a connection to ``target``: an address, or a name for the proxy to resolve."""
    if failures.proxy.scheme.startswith("socks"):
        return _SocksNegotiation(target, failures)
    return _HttpNegotiation(target, failures)


class _HttpNegotiation:
    """A CONNECT to the gateway (RFC 9110 §9.3.6), with Basic credentials (RFC 7617)."""

    def __init__(self, target: HostPort, failures: ProxyFailures) -> None:
        self._failures = failures
        self._target = target
        credentials = failures.proxy.credentials
        headers: dict[str, str] = {}
        if credentials is not None:
            encoded = b64encode(credentials.get_secret_value().encode()).decode()
            headers["Proxy-Authorization"] = f"Basic {encoded}"
        self._exchange = Exchange(ConnectRequest(str(target), headers))
        self._outgoing = self._exchange.request
        self.is_over = False

    def pop_outgoing(self) -> bytes:
        outgoing, self._outgoing = self._outgoing, b""
        return outgoing

    def receive(self, data: bytes) -> None:
        try:
            answer = self._exchange.receive(data) or self._exchange.answer_so_far  # a refusal's body is not used
        except MalformedAnswer as error:
            if not data:
                raise self._failures.unanswered() from error
            raise self._failures.garbage("not HTTP") from error  # the parser's message could quote the credentials
        if answer is None:
            if not data:
                raise self._failures.unanswered()
            return
        if not 200 <= answer.status < 300:
            raise self._refusal(answer.status)
        if answer.early:
            raise self._failures.garbage("it sent bytes before the gateway could")
        self.is_over = True

    def _refusal(self, status: int) -> TunnelError:
        failures, target = self._failures, self._target
        if status == 407:
            return failures.asks_for_credentials("refuses CONNECT with 407")
        if status in {401, 403}:
            return failures.refused(f"forbids connections to {target} ({status}); allow CONNECT to it in its rules")
        if status in _UNAVAILABLE:
            return failures.unconnected(target, status)
        if 300 <= status < 400 or status == 511:
            return failures.refused(f"answers with a login page ({status}); log in to the network first")
        if status in _NO_TUNNELS:
            return failures.refused(f"does not take CONNECT ({status}); check scheme and port of forward_proxy")
        return failures.refused(f"refuses to connect to {target} ({status}); check its log")


class _SocksNegotiation:
    """SOCKS5, with refusals as TunnelErrors."""

    def __init__(self, target: HostPort, failures: ProxyFailures) -> None:
        self._failures = failures
        self._target = target
        credentials = failures.proxy.credentials
        user, _, password = credentials.get_secret_value().partition(":") if credentials else ("", "", "")
        self._socks = Socks5(target.host, target.port, user, password)

    @property
    def is_over(self) -> bool:
        return self._socks.is_open

    def pop_outgoing(self) -> bytes:
        return self._socks.pop_outgoing()

    def receive(self, data: bytes) -> None:
        if not data:
            raise self._failures.unreachable("closed the connection in the SOCKS handshake; check that it is up")
        try:
            self._socks.receive(data)
        except Malformed as error:
            raise self._failures.garbage(str(error)) from error
        except Refusal as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Refusal) -> TunnelError:
        failures, target = self._failures, self._target
        if error.is_for_credentials:
            return failures.asks_for_credentials(str(error))
        if error.is_final:
            return failures.refused(f"refuses to connect to {target} ({error}); allow it in its rules")
        return failures.unconnected(target, error)
