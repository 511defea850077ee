"""All expected errors, by the decision they require: callers read ``recovery``, never the message.

``str(error)`` is one sentence for operators: what to do and where, then what was tried and what came back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Recovery(Enum):
    """What may resolve a failure."""

    RETRY = "retry"
    """The same attempt may succeed later."""
    REAUTHENTICATE = "reauthenticate"
    """Another token may be accepted."""
    OPERATOR = "operator"
    """An operator has to change the configuration here or at the gateway."""


class PomagentError(Exception):
    """Base of all failures that the agent expects."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One problem of the configuration: where, what is wrong, what was expected."""

    path: Path | None
    line: int
    """Line, counted from 1, or 0 if there is none (a missing file, the environment)."""
    key: str
    """Dotted key, such as ``routes.orders-db.listen``, empty for a problem of the whole file."""
    message: str
    column: int = 0
    """Column, counted from 1, known for TOML syntax errors only."""
    may_pass: bool = field(default=False, compare=False)
    """Whether it may disappear without an edit, such as a directory that is not mounted yet."""

    def __str__(self) -> str:
        where = "environment" if self.path is None else str(self.path)
        if self.line:
            where += f":{self.line}" + (f":{self.column}" if self.column else "")
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class ConfigError(PomagentError):
    """The configuration is invalid. ``problems`` has every reason, in the order of the files."""

    def __init__(
        self, problems: Sequence[Problem], watched: frozenset[Path] = frozenset(), patterns: tuple[str, ...] = ()
    ) -> None:
        self.problems = tuple(problems)
        self.watched = watched
        """Files that may resolve it when they change."""
        self.patterns = patterns
        """Patterns of files that may resolve it by appearing in or vanishing from a watched directory."""
        super().__init__("\n".join(map(str, self.problems)))

    @property
    def may_pass(self) -> bool:
        """Whether the same files may be valid later, because nothing but their surroundings is wrong."""
        return all(problem.may_pass for problem in self.problems)


class BindError(PomagentError):
    """A listen address is not available."""

    def __init__(self, address: object, cause: str, remedy: str = "") -> None:
        self.address = address
        self._cause = cause
        self._remedy = remedy
        super().__init__(address, cause, remedy)

    def __str__(self) -> str:
        remedy = f"; {self._remedy}" if self._remedy else ""
        return f"cannot listen on {self.address}: {self._cause}{remedy}"

    def held_by(self, holder: str) -> None:
        """Add the process or user that holds the address."""
        self._cause += f" by {holder}"


class StreamLost(PomagentError):
    """A connection ended abnormally: a reset, a broken TLS stream, an end without close_notify."""

    def __init__(self, cause: str, alert: str = "") -> None:
        self.alert = alert
        """OpenSSL's name of the TLS alert that ended it (``TLSV13_ALERT_CERTIFICATE_REQUIRED``), if any."""
        super().__init__(cause)


class StreamReset(StreamLost):
    """The gateway ended the tunnel or the whole connection with an HTTP/2 error code (RFC 9113 §7)."""

    def __init__(self, cause: str, code: int) -> None:
        self.code = code
        super().__init__(cause)


class StreamBroken(StreamLost):
    """The gateway breaks the rules of HTTP/2, or exceeds a limit. ``sent_code`` is the error code sent to it."""

    def __init__(self, cause: str, sent_code: str) -> None:
        self.sent_code = sent_code
        super().__init__(f"the gateway breaks HTTP/2: {cause}")


class CredentialError(PomagentError):
    """A token cannot be read or refreshed."""


class PoolError(PomagentError):
    """No tunnel could be leased, for a reason within the agent."""

    recovery = Recovery.RETRY
    reason = ""
    """The reason in ``session.refused``, empty if ``recovery`` is specific enough."""


class PoolExhausted(PoolError):
    """No tunnel was ready in time, or too many clients were waiting."""


class PoolClosed(PoolError):
    """The route is draining, or was removed or replaced."""


class RoutePaused(PoolError):
    """An operator has paused the route."""

    recovery = Recovery.OPERATOR
    reason = "paused"

    def __init__(self, route: str) -> None:
        super().__init__(f"the route is paused; to accept clients again: pomagent resume {route}")


class TunnelError(PomagentError):
    """A tunnel could not be opened."""

    recovery = Recovery.RETRY
    reason = ""
    status: int | None = None
    request_id: str = ""

    def __init__(
        self, what: str, *, gateway: str, destination: str, phase: str, detail: str = "", origin: str = "via"
    ) -> None:
        """``what`` is the cause and its remedy. Raw text comes last: ``origin``, the gateway, and ``detail``."""
        self.gateway = gateway
        self.destination = destination
        self.phase = phase
        super().__init__(f"{destination}: {what} ({origin} {gateway}{f': {detail}' if detail else ''})")

    @property
    def kind(self) -> str:
        """The name of the error in metrics, such as ``gateway_unreachable``."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()


class TokenMissing(TunnelError):
    """The source of the credential returns no token."""

    recovery = Recovery.REAUTHENTICATE


class GatewayUnreachable(TunnelError):
    """The host name did not resolve, or the connection was refused or reset."""


class GatewayTimedOut(TunnelError):
    """A phase took longer than its timeout."""


class GatewayUnusable(TunnelError):
    """The gateway must not be dialed: a certificate, key or password that it needs cannot be used yet."""

    recovery = Recovery.OPERATOR


class GatewayUntrusted(TunnelError):
    """The certificate or host name does not verify, or the gateway requires a client certificate."""

    recovery = Recovery.OPERATOR


class ProxyRefused(TunnelError):
    """The forward proxy refused the connection, so the gateway was not reached."""

    recovery = Recovery.OPERATOR


class GatewayMisbehaved(TunnelError):
    """The reply was malformed, over a limit, or not a tunnel."""


class GatewayRefused(TunnelError):
    """The gateway answered CONNECT with a refusal."""

    def __init__(
        self, what: str, *, gateway: str, destination: str, status: int, request_id: str = "", retry_after_s: float = 0,
        detail: str = "",
    ) -> None:  # fmt: skip
        super().__init__(
            what, gateway=gateway, destination=destination, phase="connect", detail=detail, origin=f"{status} from"
        )
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class OutageInFront(GatewayRefused):
    """Something in front of the gateway answered in its place, which says nothing about a credential or a route."""


class CredentialRejected(GatewayRefused):
    """Pomerium answered 401 or redirected to its sign-in page."""

    recovery = Recovery.REAUTHENTICATE


class RouteForbidden(GatewayRefused):
    """Pomerium's authorizer answered 403: its policy denies access."""

    recovery = Recovery.OPERATOR


class BearerForbidden(GatewayRefused):
    """Pomerium's authorizer answered 403 to a ``bearer`` token: the token is bad, or the policy denies access."""

    recovery = Recovery.OPERATOR


class RouteUnknown(GatewayRefused):
    """The gateway itself answered 404: it has no such TCP route."""

    recovery = Recovery.OPERATOR


class DestinationDown(GatewayRefused):
    """The gateway answered 503 because it cannot reach the server of the route."""


class GatewayOverloaded(GatewayRefused):
    """The gateway answered 408, 429 or a 5xx that is temporary."""


class RequestRefused(GatewayRefused):
    """The gateway requires another request, device or client certificate."""

    recovery = Recovery.OPERATOR
