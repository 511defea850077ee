"""Decides which failures of a route are logged: the first of each kind until the route works again. Pure.

While a gateway is down, every dial of each route fails. The log needs one line for each cause, not for each dial.
"""

from __future__ import annotations

from pomagent.errors import TunnelError

AFTER_TLS = ("token", "connect")
"""Phases that follow the TLS handshake. A successful handshake does not show that they work."""


class FailureLog:
    """One route's failures since its last success."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, int | None]] = set()
        self.count = 0

    def is_news(self, error: TunnelError) -> bool:
        """Count a failure, and return whether it is the first of its kind, phase and status."""
        self.count += 1
        cause = (error.kind, error.phase, error.status)
        is_new = cause not in self._seen
        self._seen.add(cause)
        return is_new

    def secured(self) -> None:
        """Forget failures of the phases up to TLS, after a handshake succeeded."""
        self._seen = {cause for cause in self._seen if cause[1] in AFTER_TLS}
        if not self._seen:
            self.count = 0

    def accepted(self) -> None:
        """Forget all failures, after a CONNECT was accepted."""
        self._seen.clear()
        self.count = 0
