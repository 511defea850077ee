"""The time budget of an operation."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns monotonic seconds, of which only differences are meaningful."""


class Deadline:
    """One time budget shared by all waits of an operation."""

    __slots__ = ("_at", "_clock", "budget_s")

    def __init__(self, budget_s: float, clock: Clock = time.monotonic) -> None:
        self.budget_s = budget_s
        self._clock = clock
        self._at = clock() + budget_s

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._at - self._clock())

    @property
    def is_over(self) -> bool:
        return self._clock() >= self._at
