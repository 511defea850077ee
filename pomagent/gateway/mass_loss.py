"""Warm tunnels of one gateway that end at the same moment: one event, and no stampede when they are replaced. Pure.

Edges do that: a restart, a new listener (wire contract §6.3).
"""

from __future__ import annotations

from dataclasses import dataclass, field

QUIET_S = 1.0
"""Without another loss for so long, a burst is over."""
LONGEST_S = 5.0
"""A burst that goes on is the next one."""
MANY = 3
"""Fewer are a coincidence."""
REFILLS_PER_S = 100.0
"""What was lost is replaced no faster: a gateway that has just come back has sessions to serve as well."""
MOST_SPREAD_S = 30.0
ALIKE = 0.25
"""Ages that differ by no more than so much of the largest, or ``ALIKE_S``: a server's limit, or the first restart."""
ALIKE_S = 1.5


@dataclass(slots=True)
class Burst:
    """What ended together."""

    began: float
    last: float
    count: int = 0
    youngest_s: float = float("inf")
    oldest_s: float = 0.0
    routes: set[str] = field(default_factory=set)

    @property
    def is_many(self) -> bool:
        return self.count >= MANY

    @property
    def over_at(self) -> float:
        return min(self.last + QUIET_S, self.began + LONGEST_S)

    @property
    def within_ms(self) -> int:
        return round((self.last - self.began) * 1000)


class Losses:
    """The last burst of one gateway."""

    def __init__(self) -> None:
        self.burst: Burst | None = None
        self.total = 0
        self._refused_at = float("-inf")

    def refused(self, now: float) -> None:
        """A dial has failed before the gateway had a word of a destination."""
        self._refused_at = now

    def note(self, route: str, age_s: float, now: float) -> None:
        """A warm tunnel, or TLS connection, ended by itself."""
        burst = self.burst
        if burst is None or now >= burst.over_at:
            burst = self.burst = Burst(now, now)
        self.total += 1
        burst.last = now
        burst.count += 1
        burst.youngest_s, burst.oldest_s = min(burst.youngest_s, age_s), max(burst.oldest_s, age_s)
        burst.routes.add(route)

    def caused_by_gateway(self, now: float) -> bool:
        """Whether what ended lately is the gateway's doing: it lets nobody in, or ages that no limit explains."""
        burst = self.burst
        if burst is None or now >= burst.over_at + QUIET_S:
            return False
        if self._refused_at >= burst.began:
            return True
        return len(burst.routes) > 1 and burst.oldest_s - burst.youngest_s > max(ALIKE_S, ALIKE * burst.oldest_s)

    def spread_s(self, now: float) -> float:
        """Over how long the replacement of what has just been lost is to be spread."""
        burst = self.burst
        if burst is None or now >= burst.over_at or not burst.is_many:
            return 0.0
        return min(MOST_SPREAD_S, burst.count / REFILLS_PER_S)
