"""How long a pool waits after a failure before it dials again: pure, with the clock and the dice passed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pomagent.errors import Recovery

FAST_TRIES = 3
"""A restarting gateway is back within a second; nobody should wait a long step for it."""
FAST_DELAY_S = 0.2
HEALTHY_AFTER_S = 10.0
"""Without a failure for so long after the last wait, the next failure starts a new streak."""


@dataclass(frozen=True, slots=True)
class Schedule:
    first_s: float
    cap_s: float
    fast_tries: int = 0


SCHEDULES = {
    Recovery.RETRY: Schedule(1.0, 30.0, FAST_TRIES),
    Recovery.REAUTHENTICATE: Schedule(5.0, 60.0),
    Recovery.OPERATOR: Schedule(5.0, 300.0),  # hammering a denial fills the gateway's audit log
}

Dice = Callable[[float, float], float]
"""``random.uniform`` or a stand-in."""


class Backoff:
    """The streak of failures of one pool and the wait that it has earned."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._streak = 0
        self._healthy_from = 0.0
        self.retry_at = 0.0

    @property
    def failures(self) -> int:
        return self._streak

    def failed(self, recovery: Recovery, now: float, at_least_s: float = 0.0) -> float:
        """Count a failure and return the seconds to wait; ``at_least_s`` is what the gateway asked for.

        Failures during a wait belong to the one that earned it: dials fail in waves.
        """
        if now < self.retry_at:
            return self.retry_at - now
        if now >= self._healthy_from:
            self._streak = 0
        self._streak += 1
        delay = max(self._delay(SCHEDULES[recovery]), at_least_s)
        self.retry_at = now + delay
        self._healthy_from = self.retry_at + HEALTHY_AFTER_S
        return delay

    def ended_early(self, lived_s: float, now: float) -> None:
        """Count a tunnel that nobody used and that ended by itself: a failure if it was young."""
        if lived_s < HEALTHY_AFTER_S:
            self.failed(Recovery.RETRY, now)
        else:
            self.reset()

    def reset(self) -> None:
        """Forget the streak: something changed that may heal it (a credential, an operator's word)."""
        self._streak = 0
        self.retry_at = 0.0

    def _delay(self, schedule: Schedule) -> float:
        if self._streak <= schedule.fast_tries:
            return self._dice(FAST_DELAY_S * 0.5, FAST_DELAY_S * 1.5)
        step = min(self._streak - schedule.fast_tries - 1, 16)
        ceiling = min(schedule.cap_s, schedule.first_s * 2.0**step)
        return self._dice(ceiling * 0.1, ceiling)  # full jitter, but never at once
