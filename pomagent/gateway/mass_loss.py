"""Groups losses of one gateway's warm tunnels into bursts, and spreads their replacement over time. Pure.

A gateway that restarts or changes its listeners ends many tunnels at the same moment (wire contract §6.3).
"""

from __future__ import annotations

from dataclasses import dataclass, field

QUIET_S = 1.0
"""Seconds without another loss that end a burst."""
LONGEST_S = 5.0
"""Maximum seconds of a burst. Later losses begin the next one."""
MANY = 3
"""Minimum losses of a burst that is reported. Fewer are a coincidence."""
REFILLS_PER_S = 100.0
"""Maximum rate of replacement: a gateway that has just come back also has sessions to serve."""
MOST_SPREAD_S = 30.0
"""Maximum seconds over which a replacement is spread."""
ALIKE = 0.25
"""Tunnels count as equally old if their ages differ by at most this part of the largest age, or by ``ALIKE_S``. Equal
ages point to a time limit of the server, or to its first restart."""
ALIKE_S = 1.5


@dataclass(slots=True)
class Burst:
    """Losses that happened together."""

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
    """The latest burst of one gateway, and the number of all losses."""

    def __init__(self) -> None:
        self.burst: Burst | None = None
        self.total = 0
        self._refused_at = float("-inf")

    def refused(self, now: float) -> None:
        """Record a dial that failed before the gateway learned its destination."""
        self._refused_at = now

    def note(self, route: str, age_s: float, now: float) -> None:
        """Record a warm tunnel, or TLS connection, that ended by itself."""
        burst = self.burst
        if burst is None or now >= burst.over_at:
            burst = self.burst = Burst(now, now)
        self.total += 1
        burst.last = now
        burst.count += 1
        burst.youngest_s, burst.oldest_s = min(burst.youngest_s, age_s), max(burst.oldest_s, age_s)
        burst.routes.add(route)

    def caused_by_gateway(self, now: float) -> bool:
        """Return whether the gateway caused the latest losses.

        It did if it also rejects dials, or if several routes lost tunnels of ages that no time limit explains.
        """
        burst = self.burst
        if burst is None or now >= burst.over_at + QUIET_S:
            return False
        if self._refused_at >= burst.began:
            return True
        return len(burst.routes) > 1 and burst.oldest_s - burst.youngest_s > max(ALIKE_S, ALIKE * burst.oldest_s)

    def spread_s(self, now: float) -> float:
        """Return the seconds over which to spread the replacement of the present burst."""
        burst = self.burst
        if burst is None or now >= burst.over_at or not burst.is_many:
            return 0.0
        return min(MOST_SPREAD_S, burst.count / REFILLS_PER_S)
