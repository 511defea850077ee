"""Wakes the one greenlet that sleeps on it: at once, or at the earliest moment that anybody has named."""

from __future__ import annotations

import math
from typing import Any

from gevent import get_hub
from gevent.event import Event

from pomagent.runtime.deadline import Clock

SHORTEST_S = 0.001
"""The hub's clock may be a moment behind ours: not in a tight loop until they agree."""


class WakeupTimer:
    """One timer; to move it costs a sleeper nothing, as a wait with a time-out of its own would."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = Event()
        self._timer: Any = None
        self._at = math.inf

    def ring(self) -> None:
        """Wake it now. Does not block."""
        self._rung.set()

    def ring_by(self, at: float) -> None:
        """Wake it at this moment, if not before. Does not block."""
        if at < self._at:
            self._set(at)

    def wait_until(self, at: float | None) -> None:
        """Sleep until somebody rings, or this moment; None: only until somebody rings. Blocks."""
        at = math.inf if at is None else at
        if at != self._at:
            self._set(at)
        self._rung.wait()
        self._rung.clear()

    def close(self) -> None:
        """Nobody is woken by time any more. Does not block."""
        self._set(math.inf)

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        self._at = at
        if at < math.inf:
            self._timer = get_hub().loop.timer(max(SHORTEST_S, at - self._clock()))
            self._timer.start(self._on_time)

    def _on_time(self) -> None:
        """Called in the hub."""
        self.close()
        self._rung.set()
