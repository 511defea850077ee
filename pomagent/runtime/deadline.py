"""How much of an operation's budget is left."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds that never go back; only differences mean anything."""


class Deadline:
    """One budget for one operation, however many waits it has."""

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
