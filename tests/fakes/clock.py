"""A clock and dice that the test controls."""

from __future__ import annotations


class FakeClock:
    """A clock that stands still until the test advances it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.calls = 0

    def __call__(self) -> float:
        self.calls += 1
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeDice:
    """A ``random.uniform`` that always returns the same place between its bounds: 0 the lower, 1 the upper."""

    def __init__(self, falls: float = 1.0) -> None:
        self.falls = falls

    def __call__(self, low: float, high: float) -> float:
        return low + (high - low) * self.falls
