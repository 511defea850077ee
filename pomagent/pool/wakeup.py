"""Wakes the one greenlet that sleeps on it: at once, or at the earliest moment that was set."""

from __future__ import annotations

import math
from typing import Any

from gevent import get_hub
from gevent.event import Event

from pomagent.runtime.deadline import Clock

MIN_TIMER_S = 0.001
"""Minimum seconds of a timer: the hub's clock may lag behind ours, and the greenlet must not spin until they agree."""


class WakeupTimer:
    """One timer that can be moved without waking the sleeper, unlike a wait with a timeout."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = Event()
        self._timer: Any = None
        self._at = math.inf

    def ring(self) -> None:
        """Wake the sleeper now. Does not block."""
        self._rung.set()

    def ring_by(self, at: float) -> None:
        """Wake the sleeper at this moment at the latest. Does not block."""
        if at < self._at:
            self._set(at)

    def wait_until(self, at: float | None) -> None:
        """Sleep until this moment or until rung. With None, sleep only until rung. Blocks."""
        at = math.inf if at is None else at
        if at != self._at:
            self._set(at)
        self._rung.wait()
        self._rung.clear()

    def close(self) -> None:
        """Cancel the timer. Does not block."""
        self._set(math.inf)

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        self._at = at
        if at < math.inf:
            self._timer = get_hub().loop.timer(max(MIN_TIMER_S, at - self._clock()))
            self._timer.start(self._on_time)

    def _on_time(self) -> None:
        """Wake the sleeper. Called in the hub."""
        self.close()
        self._rung.set()
