"""How long a pool waits after a failure before it dials again: pure, with the clock and the dice passed in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pomagent.errors import Recovery

FAST_TRIES = 3
"""A restarting gateway is back within a second; nobody should wait a long step for it."""
FAST_DELAY_S = 0.2
HEALTHY_AFTER_S = 10.0
"""Without a failure for so long after a success, the next failure starts a new streak. Time alone proves nothing: the
dial to a firewalled database takes longer than this to fail."""
RETRY_AFTER_CAP_S = 300.0
"""A gateway may ask for a pause, not for a day without warm tunnels."""


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
        self._healthy_from = math.inf
        self.retry_at = 0.0

    @property
    def failures(self) -> int:
        return self._streak

    def failed(self, recovery: Recovery, now: float, at_least_s: float = 0.0) -> float:
        """Count a failure and return the seconds to wait; ``at_least_s`` is what the gateway asked for.

        Failures during a wait belong to the one that earned it: dials fail in waves. Only what a gateway asks for may
        prolong it.
        """
        delay = min(at_least_s, RETRY_AFTER_CAP_S)
        if now < self.retry_at:
            delay = max(delay, self.retry_at - now)
        else:
            self._streak = 1 if now >= self._healthy_from else self._streak + 1
            delay = max(delay, self._delay(SCHEDULES[recovery]))
        self.retry_at = now + delay
        self._healthy_from = math.inf
        return delay

    def succeeded(self, now: float) -> None:
        """Note a dial that worked: the wait is over, and the streak as well if nothing fails for a while."""
        self.retry_at = min(self.retry_at, now)
        self._healthy_from = min(self._healthy_from, now + HEALTHY_AFTER_S)

    def hurry(self, at: float) -> None:
        """End the wait at this moment, if not before."""
        self.retry_at = min(self.retry_at, at)

    def ended_early(self, lived_s: float, now: float) -> None:
        """Count a tunnel that nobody used and that ended by itself: a failure if it was young.

        An old one proves that things were well, not that what failed since is.
        """
        if lived_s < HEALTHY_AFTER_S:
            self.failed(Recovery.RETRY, now)
        elif now >= self.retry_at:
            self.reset()

    def reset(self) -> None:
        """Forget the streak: something changed that may heal it (a credential, an operator's word)."""
        self._streak = 0
        self.retry_at = 0.0
        self._healthy_from = math.inf

    def _delay(self, schedule: Schedule) -> float:
        if self._streak <= schedule.fast_tries:
            return self._dice(FAST_DELAY_S * 0.5, FAST_DELAY_S * 1.5)
        step = min(self._streak - schedule.fast_tries - 1, 16)
        ceiling = min(schedule.cap_s, schedule.first_s * 2.0**step)
        return min(ceiling, self._dice(ceiling * 0.1, ceiling))  # full jitter, but never at once
