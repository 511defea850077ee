"""Delays the close of a connection until the peer has received everything."""

from __future__ import annotations

import time
from itertools import chain, repeat

import gevent

from pomagent.transport.stream import Stream

RECHECK_S = (0.005, 0.02, 0.1, 0.5)
"""Pauses between two checks of what the peer has acknowledged. The last one repeats."""
DISCARD_BYTES, MAX_DISCARDS = 16 * 1024, 4
"""Size and number of the reads per check that discard input, so that an endless sender cannot occupy the hub."""


def linger(stream: Stream, stall_timeout_s: float, *, until_eof: bool = False) -> None:
    """Wait until the peer's kernel has everything that was sent, and with ``until_eof`` until the peer has ended too.

    Gives up once the peer has acknowledged nothing for ``stall_timeout_s``. Discards what the peer sends meanwhile,
    because unread input would turn the close into a reset. Blocks. Raises StreamLost.
    """
    discarded = memoryview(bytearray(DISCARD_BYTES))
    pauses = chain(RECHECK_S, repeat(RECHECK_S[-1]))
    last, since = -1, 0.0
    while True:
        count = _discard(stream, discarded)
        if until_eof and count == 0:
            return
        unsent, now = stream.unsent_bytes(), time.monotonic()
        if not (until_eof or unsent):
            return
        if unsent != last:
            last, since = unsent, now
        elif now - since > stall_timeout_s:
            return
        if count:
            gevent.sleep(RECHECK_S[0])
        elif count is None:
            stream.wait_readable(next(pauses))
        else:
            gevent.sleep(next(pauses))


def _discard(stream: Stream, buffer: memoryview) -> int | None:
    """Read and discard: return 0 at the peer's end, None if nothing is left, another number if there may be more."""
    for _ in range(MAX_DISCARDS):
        count = stream.recv_into(buffer)
        if not count:
            break
    return count
