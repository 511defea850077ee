"""Computes how long a pool waits after a failure before it dials again. Pure: callers pass the clock and the dice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pomagent.errors import Recovery

FAST_TRIES = 3
"""Failures that are followed by a fast retry: a restarting gateway is back within a second."""
FAST_DELAY_S = 0.2
"""Mean seconds before a fast retry."""
HEALTHY_AFTER_S = 10.0
"""Seconds without a failure after a success until the next failure starts a new streak. Time without a success proves
nothing: the dial to a firewalled database takes longer than this to fail."""
RETRY_AFTER_CAP_S = 300.0
"""Maximum seconds that a gateway's Retry-After delays dials: it must not leave a route cold for a day."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The delays for one kind of failure: doubled from ``first_s`` to ``cap_s`` after the fast tries."""

    first_s: float
    cap_s: float
    fast_tries: int = 0


SCHEDULES = {
    Recovery.RETRY: Schedule(1.0, 30.0, FAST_TRIES),
    Recovery.REAUTHENTICATE: Schedule(5.0, 60.0),
    Recovery.OPERATOR: Schedule(5.0, 300.0),  # frequent retries of a denial fill the gateway's audit log
}

Dice = Callable[[float, float], float]
"""``random.uniform``, or a stand-in in tests."""


class Backoff:
    """One pool's streak of failures, and the delay that follows from it."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._streak = 0
        self._healthy_from = math.inf
        self.retry_at = 0.0

    @property
    def failure_count(self) -> int:
        """Failures in the present streak."""
        return self._streak

    def failed(self, recovery: Recovery, now: float, at_least_s: float = 0.0) -> float:
        """Count a failure and return the delay in seconds. The gateway asked for ``at_least_s``.

        Dials fail in waves, so that failures during a delay belong to the failure that caused it. Only the gateway's
        request can prolong a delay.
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
        """End the delay after a dial that succeeded. The streak ends later, if nothing fails for a while."""
        self.retry_at = min(self.retry_at, now)
        self._healthy_from = min(self._healthy_from, now + HEALTHY_AFTER_S)

    def hurry(self, at: float) -> None:
        """End the delay at this moment at the latest."""
        self.retry_at = min(self.retry_at, at)

    def closed_early(self, lived_s: float, now: float) -> None:
        """Account for an unused tunnel that the other side closed: a failure if the tunnel was young.

        An old tunnel proves that dials worked once, but not that later failures are over.
        """
        if lived_s < HEALTHY_AFTER_S:
            self.failed(Recovery.RETRY, now)
        elif now >= self.retry_at:
            self.reset()

    def reset(self) -> None:
        """Forget the streak: a new credential or an operator's command may have cured it."""
        self._streak = 0
        self.retry_at = 0.0
        self._healthy_from = math.inf

    def _delay(self, schedule: Schedule) -> float:
        if self._streak <= schedule.fast_tries:
            return self._dice(FAST_DELAY_S * 0.5, FAST_DELAY_S * 1.5)
        step = min(self._streak - schedule.fast_tries - 1, 16)
        ceiling = min(schedule.cap_s, schedule.first_s * 2.0**step)
        return min(ceiling, self._dice(ceiling * 0.1, ceiling))  # full jitter, but never zero
