"""Counts measurements by size, for quantiles over time."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 20.0)
"""Bounds in seconds, from a lease of a warm tunnel to the longest timeouts."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A snapshot of a histogram."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    """Measurements up to each bound and above the one before. The last count is above all bounds."""
    total: float


class Histogram:
    """Counts of measurements between ascending ``bounds``."""

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    @property
    def now(self) -> Distribution:
        return Distribution(self._bounds, tuple(self._counts), self._total)
