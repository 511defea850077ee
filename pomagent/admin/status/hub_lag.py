"""How late the hub is: whatever holds it delays every session."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent

from pomagent.runtime.deadline import Clock
from pomagent.runtime.histogram import Histogram

LOOK_EVERY_S = 0.25
"""What holds the hub for longer than that is always seen, what holds it for 20 ms one time in twelve. More looks would
be most of what an idle agent costs."""
BOUNDS_S = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)


class HubLag:
    """A timer that measures how much later than asked for it is called."""

    def __init__(self, clock: Clock = time.monotonic, sleep: Callable[[float], object] = gevent.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self.seconds = Histogram(BOUNDS_S)

    def run(self) -> None:
        """Never returns."""
        while True:
            self.look()

    def look(self) -> None:
        """Measure once. Blocks for LOOK_EVERY_S."""
        began = self._clock()
        self._sleep(LOOK_EVERY_S)
        self.seconds.observe(max(0.0, self._clock() - began - LOOK_EVERY_S))
