"""Warm tunnels that nobody used and that ended by themselves: when that is the server's habit. Pure.

A server that limits unauthenticated connections ends them again and again, each at about the same age. A gateway that
restarts ends everything at once, and once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

WAVE_S = 1.0
"""Tunnels that were opened together end together: what ends within so long counts once."""
ALIKE = 0.25
"""Ages that differ by less than so much of the larger one are the same limit, ``ALIKE_S`` for small ones."""
ALIKE_S = 1.5
WAVES_ALIKE = 3
"""Waves of one age in a row that prove a habit."""
WAVES = 6
"""Waves of any age in a row."""
MANY = 30
"""Tunnels that a habit may cost: MySQL blocks a host after 100 (``max_connect_errors``)."""
FORGET_S = 900.0
"""After so long without one, the next wave is the first."""


@dataclass(slots=True)
class _Wave:
    began: float
    ages: list[float] = field(default_factory=list)

    @property
    def age_s(self) -> float:
        return median(self.ages)


class EarlyEnds:
    """The waves of one route."""

    def __init__(self) -> None:
        self._open: _Wave | None = None
        self._past: list[_Wave] = []

    @property
    def due_at(self) -> float | None:
        """When the open wave is to be judged; None without one."""
        return None if self._open is None else self._open.began + WAVE_S

    @property
    def age_s(self) -> float:
        """At which age those of the open wave ended."""
        return self._open.age_s if self._open else 0.0

    @property
    def is_suspicious(self) -> bool:
        """Whether the open wave may be the one that proves it: then a refill had better wait for the verdict."""
        return self._open is not None and bool(self._past)

    def most(self, now: float) -> int | None:
        """How many tunnels may be risked with a server that has ended some; None as long as it has not."""
        if not self._past or now - self._past[-1].began > FORGET_S:
            return None
        return max(1, MANY - sum(len(wave.ages) for wave in self._past))

    def note(self, age_s: float, now: float) -> None:
        """A tunnel ended at this age, unused and before we would have ended it."""
        if self._open is None:
            self._open = _Wave(now)
        self._open.ages.append(age_s)

    def lived(self, age_s: float) -> None:
        """A tunnel reached the age at which we end it, ages being jittered: there is no limit below that one."""
        self._past = [wave for wave in self._past if wave.age_s > age_s - ALIKE_S]

    def judge(self, *, was_the_gateway: bool, is_on_trial: bool) -> bool:
        """Close the open wave; True if tunnels of this route keep ending.

        ``was_the_gateway``: other routes lost theirs at the same moment. ``is_on_trial``: once more is enough.
        """
        wave, self._open = self._open, None
        if wave is None or was_the_gateway:
            return False
        if self._past and wave.began - self._past[-1].began > FORGET_S:
            self._past.clear()
        self._past.append(wave)
        is_a_habit = is_on_trial or self._is_a_habit()
        if is_a_habit:
            self._past.clear()
        return is_a_habit

    def _is_a_habit(self) -> bool:
        alike = self._alike()
        lost = sum(len(wave.ages) for wave in alike)
        return len(alike) >= WAVES_ALIKE or len(self._past) >= WAVES or (len(alike) > 1 and lost >= MANY)

    def _alike(self) -> list[_Wave]:
        """The last waves in a row whose ages are those of the last one."""
        last, alike = self._past[-1].age_s, list[_Wave]()
        for wave in reversed(self._past):
            if abs(wave.age_s - last) > max(ALIKE_S, ALIKE * max(wave.age_s, last)):
                break
            alike.append(wave)
        return alike
