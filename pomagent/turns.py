"""Busy sessions copy one after another, and between two of them the event loop looks at every descriptor.

Without it, all busy sessions that are ready run within one turn of the loop, and a session with a single byte waits for
every one of them, twice: once on its way up, once on its way down.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from gevent import get_hub
from gevent.hub import Waiter

from pomagent.stream import SCRATCH_BYTES


class Turns:
    """What the relays of one hub share: a buffer, and the order in which busy ones use it."""

    def __init__(self) -> None:
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        """Whose bytes are in it is undefined as soon as a greenlet has switched."""
        self._loop = get_hub().loop
        self._timer = self._loop.timer(0)  # at the end of each turn of the loop; a callback would come before the looks
        self._queue: deque[Waiter] = deque()
        self._given_in = -1
        """The loop's turn in which the last one was given."""

    def take(self) -> None:
        """Wait for a turn: at most one for each turn of the event loop. Blocks, but not where nobody else is busy."""
        if not self._queue and self._given_in != self._loop.iteration:
            self._given_in = self._loop.iteration
            return
        waiter = Waiter()
        self._queue.append(waiter)
        if len(self._queue) == 1:
            self._timer.start(self._give)
        try:
            waiter.get()
        except BaseException:
            with suppress(ValueError):  # it may have been given just now
                self._queue.remove(waiter)
            raise

    def _give(self) -> None:
        if not self._queue:  # who waited has been ended
            return
        waiter = self._queue.popleft()
        self._given_in = self._loop.iteration
        if self._queue:
            self._timer.start(self._give)
        waiter.switch(None)
