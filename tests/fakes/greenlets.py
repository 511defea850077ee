"""Runs greenlets and catches their crashes without waiting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gevent

ROUNDS = 20
"""Turns of the loop, more than any chain of greenlets that wake one another."""


def settle() -> None:
    """Run greenlets until all of them wait. Blocks for some turns of the loop."""
    for _ in range(ROUNDS):
        gevent.sleep(0)


@contextmanager
def caught_crashes() -> Iterator[list[BaseException]]:
    """Collect the crashes of greenlets that would be logged as ``greenlet.crashed``."""
    crashes: list[BaseException] = []
    hub = gevent.get_hub()
    hub.print_exception = lambda context, kind, error, trace: crashes.append(error)
    try:
        yield crashes
    finally:
        del hub.print_exception
