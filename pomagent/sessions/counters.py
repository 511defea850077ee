"""Counts how one route's sessions ended, from the route's start. A reload that keeps the route keeps the counts."""

from __future__ import annotations

from collections import Counter

from pomagent.runtime.histogram import Histogram


class SessionCounts:
    """Counts sessions by the words of their log lines."""

    def __init__(self) -> None:
        self.closed: Counter[tuple[str, str]] = Counter()
        """Closed sessions by side and reason."""
        self.refused: Counter[str] = Counter()
        """Refused clients by reason."""
        self.leases = 0
        """Tunnels leased."""
        self.waited_ms = 0
        """Milliseconds that all ``leases`` together waited for their tunnels."""
        self.waits = Histogram()
        """Distribution of the same waits, in seconds."""
        self.bytes_up = 0
        self.bytes_down = 0
        """Bytes of closed sessions. A running session counts its own."""
        self.unlogged = 0
        """Sessions that ended without a log line since the route's last line."""

    def lease(self, waited_s: float) -> None:
        """Count a tunnel that was leased this many seconds after its client had connected."""
        self.leases += 1
        self.waited_ms += round(waited_s * 1000)
        self.waits.observe(waited_s)

    def close(self, side: str, reason: str, bytes_up: int, bytes_down: int) -> None:
        """Count the end of a session that had a tunnel."""
        self.closed[side, reason] += 1
        self.bytes_up += bytes_up
        self.bytes_down += bytes_down

    def refuse(self, reason: str) -> None:
        """Count a client that got no tunnel."""
        self.refused[reason] += 1
