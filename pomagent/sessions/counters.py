"""What became of the sessions of one route, counted from its start; a reload that keeps the route keeps the counts."""

from __future__ import annotations

from collections import Counter

from pomagent.runtime.histogram import Histogram


class SessionCounts:
    """Whoever ends or refuses a session says so here, in the words of its line in the log."""

    def __init__(self) -> None:
        self.closed: Counter[tuple[str, str]] = Counter()
        """By side and reason."""
        self.refused: Counter[str] = Counter()
        self.leases = 0
        self.waited_ms = 0
        """For tunnels, by all ``leases`` together."""
        self.waits = Histogram()
        """The same in seconds, by length."""
        self.bytes_up = 0
        self.bytes_down = 0
        """Of sessions that are over; those that run know their own."""
        self.unlogged = 0
        """Sessions that are over and got no line, since the route's last line."""

    def lease(self, waited_s: float) -> None:
        """A client got a tunnel, so long after it had connected."""
        self.leases += 1
        self.waited_ms += round(waited_s * 1000)
        self.waits.observe(waited_s)

    def close(self, side: str, reason: str, bytes_up: int, bytes_down: int) -> None:
        """A session that had a tunnel is over."""
        self.closed[side, reason] += 1
        self.bytes_up += bytes_up
        self.bytes_down += bytes_down

    def refuse(self, reason: str) -> None:
        """A client got no tunnel."""
        self.refused[reason] += 1
