"""How many greenlets there are."""

from __future__ import annotations

import gc
from collections.abc import Callable

import gevent

from pomagent.runtime.greenlets import ReusedGreenlet

BATCH_SIZE = 20_000
"""A millisecond, before other greenlets get their turn."""


def greenlets(give_way: Callable[[], None]) -> int:
    """How many live that came after the start: with the descriptors, what a leak would show in.

    Those of the start are frozen out of sight of the collector (see ``service``). Those of the crew that are at rest do
    not count, nor do pools of threads, whose bare ones come and stay with the threads. Blocks only in ``give_way``.
    For the hub's thread alone: another one could be the last to hold a watcher of the hub's loop, and end it there.
    """
    found = 0
    for number, thing in enumerate(gc.get_objects(), 1):
        found += isinstance(thing, gevent.Greenlet) and not thing.dead and not _is_at_rest(thing)
        if number % BATCH_SIZE == 0:
            give_way()
    return found


def _is_at_rest(greenlet: gevent.Greenlet) -> bool:
    return isinstance(greenlet, ReusedGreenlet) and greenlet.is_at_rest
