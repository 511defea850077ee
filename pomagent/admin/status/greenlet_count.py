"""Counts greenlets, to reveal a leak."""

from __future__ import annotations

import gc
from collections.abc import Callable

import gevent

from pomagent.runtime.greenlets import ReusedGreenlet

BATCH_SIZE = 20_000
"""Objects inspected, in about a millisecond, before other greenlets may run."""


def count_greenlets(give_way: Callable[[], None]) -> int:
    """Return the number of live greenlets that were spawned after the start. Blocks only in ``give_way``.

    Greenlets of the start are not counted: the service freezes them out of the garbage collector's sight. Idle reused
    greenlets are not counted either, nor the bare greenlets of thread pools, which live as long as their threads. Call
    this in the hub's thread only: another thread could drop the last reference to a watcher and destroy it there.
    """
    found = 0
    for number, thing in enumerate(gc.get_objects(), 1):
        found += isinstance(thing, gevent.Greenlet) and not thing.dead and not _is_at_rest(thing)
        if number % BATCH_SIZE == 0:
            give_way()
    return found


def _is_at_rest(greenlet: gevent.Greenlet) -> bool:
    return isinstance(greenlet, ReusedGreenlet) and greenlet.is_idle
