"""What is said to a forward proxy until it passes everything on to the gateway, without I/O; and how it can fail.

Whatever a proxy answers, it is not the gateway: no failure here says anything about the route or its credential.
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
from pomagent.protocol.connect import Exchange, MalformedAnswer, Request
from pomagent.protocol.socks5 import Malformed, Refusal, Socks5
from pomagent.settings import ForwardProxy, HostPort

PHASE = "proxy"

_NOT_NOW = frozenset({408, 425, 429, 500, 502, 503, 504})
"""What the proxy says when it gets no connection to the gateway, or has too much to do."""
_NO_TUNNELS = frozenset({400, 404, 405, 501})


class ProxyFailures:
    """The errors of one way through a proxy, each a sentence with what to do."""

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
        return self.misbehaved(f"does not answer as {kind} proxy does ({why}); check scheme and port of forward_proxy")

    def opened_nothing(self, budget_s: float) -> GatewayTimedOut:
        return self.timed_out(
            f"opened no connection within {budget_s:g} s; is the gateway up, as it sees it? "
            "connect_timeout_s is the limit"
        )

    def broke_off(self, why: str) -> GatewayUnreachable:
        return self.unreachable(f"broke the connection off ({why}); is it up?")

    def wants_credentials(self, what: str) -> ProxyRefused:
        if self.proxy.credentials is None:
            return self.refused(f"{what}: it asks for a user and a password; set forward_proxy_credentials_file")
        return self.refused(
            f"{what}: it does not accept the user and the password; mend forward_proxy_credentials_file"
        )

    def _sentence(self, what: str) -> str:
        return f"the forward proxy {self.proxy.address} {what}"

    @property
    def _named(self) -> dict[str, str]:
        return {"gateway": self._gateway, "destination": self.destination, "phase": PHASE}


class Conversation(Protocol):
    """One negotiation: bytes out, bytes in, until it is over."""

    @property
    def is_over(self) -> bool:
        """Whether the proxy passes everything on from now."""

    def take_outgoing(self) -> bytes:
        """What is to be sent now."""

    def receive(self, data: bytes) -> None:
        """Take what arrived; ``b""`` is the end. Raises TunnelError."""


def converse(target: HostPort, failures: ProxyFailures) -> Conversation:
    """Ask the proxy for a connection to ``target``: an address, or a name that the proxy is to look up."""
    if failures.proxy.scheme.startswith("socks"):
        return _SocksConversation(target, failures)
    return _HttpConversation(target, failures)


class _HttpConversation:
    """A CONNECT to the gateway (RFC 9110 §9.3.6), with Basic credentials (RFC 7617)."""

    def __init__(self, target: HostPort, failures: ProxyFailures) -> None:
        self._failures = failures
        self._target = target
        credentials = failures.proxy.credentials
        headers: dict[str, str] = {}
        if credentials is not None:
            encoded = b64encode(credentials.get_secret_value().encode()).decode()
            headers["Proxy-Authorization"] = f"Basic {encoded}"
        self._exchange = Exchange(Request(str(target), headers))
        self._outgoing = self._exchange.request
        self.is_over = False

    def take_outgoing(self) -> bytes:
        outgoing, self._outgoing = self._outgoing, b""
        return outgoing

    def receive(self, data: bytes) -> None:
        try:
            answer = self._exchange.receive(data) or self._exchange.answer_so_far  # nobody needs a refusal's page
        except MalformedAnswer as error:
            if not data:
                raise self._failures.unreachable("has closed the connection without an answer; is it up?") from error
            raise self._failures.garbage("not HTTP") from error  # its own words could quote what we have sent
        if answer is None:
            if not data:
                raise self._failures.unreachable("has closed the connection without an answer; is it up?")
            return
        if not 200 <= answer.status < 300:
            raise self._refusal(answer.status)
        if answer.early:
            raise self._failures.garbage("it speaks before the gateway was spoken to")
        self.is_over = True

    def _refusal(self, status: int) -> TunnelError:
        failures, target = self._failures, self._target
        if status == 407:
            return failures.wants_credentials("refuses with 407")
        if status in {401, 403}:
            return failures.refused(f"forbids connections to {target} ({status}); have its rules allow CONNECT to it")
        if status in _NOT_NOW:
            return failures.unreachable(f"gets no connection to {target} ({status}); is the gateway up, as it sees it?")
        if 300 <= status < 400 or status == 511:
            return failures.refused(f"answers with a page of its own ({status}); somebody has to log in to the network")
        if status in _NO_TUNNELS:
            return failures.refused(f"does not take CONNECT ({status}); check scheme and port of forward_proxy")
        return failures.refused(f"refuses a connection to {target} ({status}); look at its log")


class _SocksConversation:
    """SOCKS5, in the words of our errors."""

    def __init__(self, target: HostPort, failures: ProxyFailures) -> None:
        self._failures = failures
        self._target = target
        credentials = failures.proxy.credentials
        user, _, password = credentials.get_secret_value().partition(":") if credentials else ("", "", "")
        self._socks = Socks5(target.host, target.port, user, password)

    @property
    def is_over(self) -> bool:
        return self._socks.is_open

    def take_outgoing(self) -> bytes:
        return self._socks.take_outgoing()

    def receive(self, data: bytes) -> None:
        if not data:
            raise self._failures.unreachable("has closed the connection in the middle of the SOCKS handshake")
        try:
            self._socks.receive(data)
        except Malformed as error:
            raise self._failures.garbage(str(error)) from error
        except Refusal as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Refusal) -> TunnelError:
        failures, target = self._failures, self._target
        if error.is_for_credentials:
            return failures.wants_credentials(str(error))
        if error.is_final:
            return failures.refused(f"refuses a connection to {target} ({error}); have its rules allow it")
        return failures.unreachable(f"gets no connection to {target} ({error}); is the gateway up, as it sees it?")
