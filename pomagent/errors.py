"""Everything that can go wrong, as decisions: who catches reads ``recovery``, never the message.

``str(error)`` is one sentence for a person: what was tried, on what, what came back, what to do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Recovery(Enum):
    """What may help after a failure."""

    RETRY = "retry"
    """Time: the same attempt may succeed later."""
    REAUTHENTICATE = "reauthenticate"
    """Another token."""
    OPERATOR = "operator"
    """A human has to change something, here or at the gateway."""


class PomagentError(Exception):
    """Any failure that the agent expects."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with the configuration: where, what is wrong, what was expected."""

    path: Path | None
    line: int
    """Counted from 1; 0 where there is none (a missing file, the environment)."""
    key: str
    """Dotted, such as ``routes.orders-db.listen``; empty where the file as a whole is meant."""
    message: str
    column: int = 0
    """Counted from 1, for TOML syntax errors only."""

    def __str__(self) -> str:
        where = "environment" if self.path is None else str(self.path)
        if self.line:
            where += f":{self.line}" + (f":{self.column}" if self.column else "")
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class ConfigError(PomagentError):
    """The configuration cannot be used; ``problems`` has every reason, in the order of the files."""

    def __init__(
        self, problems: Sequence[Problem], watched: frozenset[Path] = frozenset(), patterns: tuple[str, ...] = ()
    ) -> None:
        self.problems = tuple(problems)
        self.watched = watched
        """Files whose change may heal it."""
        self.patterns = patterns
        """Names of files that may heal it by coming or going in a watched directory."""
        super().__init__("\n".join(map(str, self.problems)))


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
        """Say who has the address, as far as that is known."""
        self._cause += f" by {holder}"


class StreamLost(PomagentError):
    """A connection ended without saying so: a reset, a broken TLS stream, an end without close_notify."""

    def __init__(self, cause: str, alert: str = "") -> None:
        self.alert = alert
        """The TLS alert's name in OpenSSL's words (``TLSV13_ALERT_CERTIFICATE_REQUIRED``), if that was the end."""
        super().__init__(cause)


class StreamReset(StreamLost):
    """The gateway ended the tunnel, or the whole connection, with one of HTTP/2's codes (RFC 9113 §7)."""

    def __init__(self, cause: str, code: int) -> None:
        self.code = code
        super().__init__(cause)


class StreamBroken(StreamLost):
    """The gateway breaks the rules of HTTP/2, or exceeds a limit of ours; it was told so with the code ``told``."""

    def __init__(self, cause: str, told: str) -> None:
        self.told = told
        super().__init__(f"the gateway breaks HTTP/2: {cause}")


class CredentialError(PomagentError):
    """A token cannot be read or refreshed."""


class PoolError(PomagentError):
    """No tunnel could be leased, for a reason of the agent's own."""

    recovery = Recovery.RETRY
    reason = ""
    """The word of ``session.refused`` for it; empty where what would help says enough."""


class PoolExhausted(PoolError):
    """No tunnel was ready in time, or too many clients were waiting for one."""


class PoolClosed(PoolError):
    """The route is draining, was removed or was replaced."""


class RoutePaused(PoolError):
    """An operator has paused the route."""

    recovery = Recovery.OPERATOR
    reason = "paused"

    def __init__(self, route: str) -> None:
        super().__init__(f"the route is paused; to let clients in again: pomagent resume {route}")


class TunnelError(PomagentError):
    """A tunnel could not be opened."""

    recovery = Recovery.RETRY
    reason = ""
    status: int | None = None
    request_id: str = ""

    def __init__(self, what: str, *, gateway: str, destination: str, phase: str) -> None:
        self.gateway = gateway
        self.destination = destination
        self.phase = phase
        super().__init__(f"{destination} via {gateway}: {what}")

    @property
    def kind(self) -> str:
        """The word for it in counters: ``gateway_unreachable``."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()


class TokenMissing(TunnelError):
    """The credential's source gives no token to send."""

    recovery = Recovery.REAUTHENTICATE


class GatewayUnreachable(TunnelError):
    """DNS, a refused or a reset connection."""


class GatewayTimedOut(TunnelError):
    """A phase took longer than its budget."""


class GatewayUntrusted(TunnelError):
    """The certificate or the host name does not verify, or the gateway wants a client certificate."""

    recovery = Recovery.OPERATOR


class ProxyRefused(TunnelError):
    """The forward proxy does not let us through; what the gateway would say nobody knows."""

    recovery = Recovery.OPERATOR


class GatewayMisbehaved(TunnelError):
    """The reply was malformed, over a limit, or not a tunnel."""


class GatewayRefused(TunnelError):
    """An answer other than a tunnel."""

    def __init__(
        self, what: str, *, gateway: str, destination: str, status: int, request_id: str = "", retry_after_s: float = 0
    ) -> None:
        super().__init__(what, gateway=gateway, destination=destination, phase="connect")
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class CredentialRejected(GatewayRefused):
    """401, or a redirect to the sign-in page."""

    recovery = Recovery.REAUTHENTICATE


class RouteForbidden(GatewayRefused):
    """403: the policy says no."""

    recovery = Recovery.OPERATOR


class RouteUnknown(GatewayRefused):
    """404 from the edge itself: it has no such TCP route."""

    recovery = Recovery.OPERATOR


class DestinationDown(GatewayRefused):
    """503 because the edge cannot reach the route's server."""


class GatewayOverloaded(GatewayRefused):
    """408, 429 and the 5xx that time heals."""


class RequestRefused(GatewayRefused):
    """The edge wants something else of the request, the device or the client certificate."""

    recovery = Recovery.OPERATOR
