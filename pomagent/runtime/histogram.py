"""Counts of measurements by size, for quantiles over time. Pure."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 20.0)
"""From a warm tunnel to the longest budgets."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram as it was at one moment."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    """Of each bound those up to it and above the one before; the last are above all bounds."""
    total: float


class Histogram:
    """Measurements so far; ``bounds`` in rising order."""

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
