"""Which failures of one route are news: the first of its kind until the route works again. Pure.

While a gateway is down each route fails with every dial; the log needs one line for each cause, not for each dial.
"""

from __future__ import annotations

from pomagent.errors import TunnelError

AFTER_TLS = ("token", "connect")
"""Phases that a connection without a CONNECT says nothing of."""


class Failures:
    """Those since the last success."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str, int | None]] = set()
        self.count = 0

    def is_news(self, error: TunnelError) -> bool:
        """Count a failure; True if there was none of its kind, phase and status yet."""
        self.count += 1
        cause = (error.kind, error.phase, error.status)
        is_new = cause not in self._told
        self._told.add(cause)
        return is_new

    def secured(self) -> None:
        """TLS stands: what failed on the way there is over."""
        self._told = {cause for cause in self._told if cause[1] in AFTER_TLS}
        if not self._told:
            self.count = 0

    def accepted(self) -> None:
        """A CONNECT was accepted: everything is."""
        self._told.clear()
        self.count = 0
