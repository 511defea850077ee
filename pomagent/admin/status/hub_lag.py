"""Measures how late the hub runs its timers: whatever blocks the hub delays every session."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent

from pomagent.runtime.deadline import Clock
from pomagent.runtime.histogram import Histogram

INTERVAL_S = 0.25
"""Seconds between two measurements. A block of the hub for longer is always seen, one of 20 ms one time in twelve. More
frequent measurements would be most of an idle agent's CPU time."""
STALL_S = 1.0
"""Seconds of lag from which a stall is reported: clients notice it, and a busy hub stays far below."""
BOUNDS_S = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
"""Upper bounds of the histogram's buckets, in seconds."""


class HubLag:
    """A timer that records how much later than requested it fires."""

    def __init__(
        self, on_stall: Callable[[float], None], clock: Clock = time.monotonic,
        sleep: Callable[[float], object] = gevent.sleep,
    ) -> None:  # fmt: skip
        """``on_stall`` gets the duration in seconds of each stall that is over."""
        self._on_stall = on_stall
        self._clock = clock
        self._sleep = sleep
        self.seconds = Histogram(BOUNDS_S)

    def run(self) -> None:
        """Measure again and again. Never returns."""
        while True:
            self.measure()

    def measure(self) -> None:
        """Measure once. Blocks for INTERVAL_S."""
        began = self._clock()
        self._sleep(INTERVAL_S)
        lag_s = max(0.0, self._clock() - began - INTERVAL_S)
        self.seconds.observe(lag_s)
        if lag_s >= STALL_S:
            self._on_stall(lag_s)
