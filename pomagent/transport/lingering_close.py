"""The end of a connection without loss: nobody closes before the other side has what was sent to it."""

from __future__ import annotations

import time
from itertools import chain, repeat

import gevent

from pomagent.transport.stream import Stream

LOOK_S = (0.005, 0.02, 0.1, 0.5)
"""How often to look at what the other side has; the last one repeats."""
SCRAP_BYTES, SCRAPS = 16 * 1024, 4
"""So many pieces of unread input are dropped with each look: a side that never stops sending must not hold the hub."""


def see_off(stream: Stream, patience_s: float, *, to_its_end: bool = False) -> None:
    """Wait until the other side's kernel has everything that was sent; ``to_its_end``: until it has ended as well.

    As long as it goes on taking something; ``patience_s`` is for a standstill. What it sends meanwhile is dropped:
    unread input would turn our close into a reset. Blocks. Raises StreamLost.
    """
    scrap = memoryview(bytearray(SCRAP_BYTES))
    pauses = chain(LOOK_S, repeat(LOOK_S[-1]))
    last, since = -1, 0.0
    while True:
        count = _drop(stream, scrap)
        if to_its_end and count == 0:
            return
        left, now = stream.unsent_bytes(), time.monotonic()
        if not (to_its_end or left):
            return
        if left != last:
            last, since = left, now
        elif now - since > patience_s:
            return
        if count:
            gevent.sleep(LOOK_S[0])
        elif count is None:
            stream.wait_readable(next(pauses))
        else:
            gevent.sleep(next(pauses))


def _drop(stream: Stream, scrap: memoryview) -> int | None:
    """Read some of what is there: 0 if its end came right behind it, None if nothing did, else there may be more."""
    for _ in range(SCRAPS):
        count = stream.recv_into(scrap)
        if not count:
            break
    return count
