"""Detects servers that close unused tunnels as a rule. Pure.

A server that limits unauthenticated connections closes them again and again, each at about the same age. A gateway that
restarts closes all tunnels at once, and only once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

WAVE_S = 1.0
"""Seconds within which closes count as one wave: tunnels that were opened together are closed together."""
ALIKE = 0.25
"""Relative difference below which two ages come from the same limit. ``ALIKE_S`` applies to small ages."""
ALIKE_S = 1.5
"""Seconds of difference below which two ages come from the same limit."""
WAVES_ALIKE = 3
"""Consecutive waves of one age that prove a rule."""
WAVES = 6
"""Consecutive waves of any age that prove a rule."""
MAX_LOST = 30
"""Maximum tunnels to lose until a rule is proved: MySQL blocks a host after 100 (``max_connect_errors``)."""
FORGET_S = 900.0
"""Seconds after which a wave is forgotten, so that the next one counts as the first."""


@dataclass(slots=True)
class _Wave:
    began: float
    ages: list[float] = field(default_factory=list)

    @property
    def age_s(self) -> float:
        return median(self.ages)


class EarlyCloses:
    """The waves in which one route's unused tunnels were closed."""

    def __init__(self) -> None:
        self._open: _Wave | None = None
        self._past: list[_Wave] = []

    @property
    def due_at(self) -> float | None:
        """When the open wave is to be judged, or None without one."""
        return None if self._open is None else self._open.began + WAVE_S

    @property
    def age_s(self) -> float:
        """The age at which the tunnels of the open wave were closed."""
        return self._open.age_s if self._open else 0.0

    @property
    def is_suspicious(self) -> bool:
        """Whether the open wave may prove a rule, so that a refill should wait for the verdict."""
        return self._open is not None and bool(self._past)

    def max_count(self, now: float) -> int | None:
        """Return how many tunnels may be risked with a server that has closed some, or None if it has closed none."""
        if not self._past or now - self._past[-1].began > FORGET_S:
            return None
        return max(1, MAX_LOST - sum(len(wave.ages) for wave in self._past))

    def note(self, age_s: float, now: float) -> None:
        """Record that the other side closed an unused tunnel at this age, before the pool would have done so."""
        if self._open is None:
            self._open = _Wave(now)
        self._open.ages.append(age_s)

    def lived(self, age_s: float) -> None:
        """Record that a tunnel reached this age and the pool closed it: the server has no limit below this age."""
        self._past = [wave for wave in self._past if wave.age_s > age_s - ALIKE_S]

    def judge(self, *, was_the_gateway: bool, is_on_trial: bool) -> bool:
        """Close the open wave, and return whether the server closes this route's unused tunnels as a rule.

        ``was_the_gateway``: other routes lost tunnels at the same moment. ``is_on_trial``: one more wave is enough.
        """
        wave, self._open = self._open, None
        if wave is None or was_the_gateway:
            return False
        if self._past and wave.began - self._past[-1].began > FORGET_S:
            self._past.clear()
        self._past.append(wave)
        is_rule = is_on_trial or self._is_rule()
        if is_rule:
            self._past.clear()
        return is_rule

    def _is_rule(self) -> bool:
        alike = self._alike()
        lost = sum(len(wave.ages) for wave in alike)
        return len(alike) >= WAVES_ALIKE or len(self._past) >= WAVES or (len(alike) > 1 and lost >= MAX_LOST)

    def _alike(self) -> list[_Wave]:
        """Return the last consecutive waves at the age of the last one."""
        last, alike = self._past[-1].age_s, list[_Wave]()
        for wave in reversed(self._past):
            if abs(wave.age_s - last) > max(ALIKE_S, ALIKE * max(wave.age_s, last)):
                break
            alike.append(wave)
        return alike
