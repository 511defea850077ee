"""Letting greenlets run, and catching their crashes, without waiting for time to pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gevent

ROUNDS = 20
"""More than any chain of greenlets that wake one another has links."""


def settle() -> None:
    """Let every greenlet that can run do so, until all of them wait for something."""
    for _ in range(ROUNDS):
        gevent.sleep(0)


@contextmanager
def caught_crashes() -> Iterator[list[BaseException]]:
    """What would be printed or logged as ``greenlet.crashed`` meanwhile."""
    crashes: list[BaseException] = []
    hub = gevent.get_hub()
    hub.print_exception = lambda context, kind, error, trace: crashes.append(error)
    try:
        yield crashes
    finally:
        del hub.print_exception
