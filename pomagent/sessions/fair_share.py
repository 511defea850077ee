"""Lets busy sessions copy one after another, and the event loop poll every descriptor between two of them.

Otherwise all busy sessions that are ready would run within one iteration of the event loop, and a session with a single
byte would wait for every one of them twice: once on its way up, once on its way down.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from gevent import get_hub, getcurrent
from gevent.hub import Waiter

from pomagent.transport.stream import SCRATCH_BYTES

TURN_BYTES = 256 * 1024
"""Maximum bytes copied in one turn, which takes about 0.5 ms."""
BUSY_BYTES = 64 * 1024
"""Bytes a session may copy after its last wait without taking a turn, so that small sessions never queue."""


class FairShare:
    """What the relays of one hub share: a buffer, and the order in which busy relays use it."""

    def __init__(self) -> None:
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        """Its content is undefined as soon as the greenlet has switched."""
        self._loop = get_hub().loop
        self._timer = self._loop.timer(0)  # fires at the end of an iteration. A callback would run before the poll
        self._queue: deque[Waiter] = deque()
        self._holder: object = None
        self._granted_in = -1
        """Iteration of the event loop in which the holder got its turn."""

    def wait_for_turn(self, copied_bytes: int) -> int:
        """Wait if this greenlet needs a turn to go on, and return how many of its copied bytes still count.

        There is one turn per iteration of the event loop. Blocks, but not while no other relay is busy.
        """
        is_granted = self._granted_in == self._loop.iteration
        if is_granted and self._holder is getcurrent() and copied_bytes < TURN_BYTES:
            return copied_bytes
        if copied_bytes < BUSY_BYTES:
            return 0
        if is_granted or self._queue:
            self._wait()
        self._holder, self._granted_in = getcurrent(), self._loop.iteration
        return 0

    def _wait(self) -> None:
        waiter = Waiter()
        self._queue.append(waiter)
        if len(self._queue) == 1:
            self._timer.start(self._grant)
        try:
            waiter.get()
        except BaseException:
            with suppress(ValueError):  # the turn may have been granted just now
                self._queue.remove(waiter)
            raise

    def _grant(self) -> None:
        if not self._queue:  # every waiting greenlet was killed
            return
        waiter = self._queue.popleft()
        if self._queue:
            self._timer.start(self._grant)
        waiter.switch(None)
