"""Busy sessions copy one after another, and between two of them the event loop looks at every descriptor.

Without it, all busy sessions that are ready run within one turn of the loop, and a session with a single byte waits for
every one of them, twice: once on its way up, once on its way down.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from gevent import get_hub, getcurrent
from gevent.hub import Waiter

from pomagent.transport.stream import SCRATCH_BYTES

TURN_BYTES = 256 * 1024
"""Copied in one turn: some 0.5 ms."""
BUSY_BYTES = 64 * 1024
"""Whoever has copied so much since it last waited needs a turn to go on; others need none."""


class FairShare:
    """What the relays of one hub share: a buffer, and the order in which busy ones use it."""

    def __init__(self) -> None:
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        """Whose bytes are in it is undefined as soon as a greenlet has switched."""
        self._loop = get_hub().loop
        self._timer = self._loop.timer(0)  # at the end of each turn of the loop; a callback would come before the looks
        self._queue: deque[Waiter] = deque()
        self._holder: object = None
        self._given_in = -1
        """The loop's turn in which the holder got its own."""

    def go_on(self, copied: int) -> int:
        """Wait for a turn where this greenlet needs one, having copied so many bytes; return how many still count.

        There is one for each turn of the event loop. Blocks, but not where nobody else is busy.
        """
        is_given = self._given_in == self._loop.iteration
        if is_given and self._holder is getcurrent() and copied < TURN_BYTES:
            return copied
        if copied < BUSY_BYTES:
            return 0
        if is_given or self._queue:
            self._wait()
        self._holder, self._given_in = getcurrent(), self._loop.iteration
        return 0

    def _wait(self) -> None:
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
        if self._queue:
            self._timer.start(self._give)
        waiter.switch(None)
