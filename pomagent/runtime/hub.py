"""Waiting for the event loop: a turn for everybody else, or a descriptor that is ready."""

from __future__ import annotations

from typing import Any

from gevent import get_hub
from gevent.hub import Waiter
from gevent.socket import wait


def give_way() -> None:
    """Let every other greenlet and every descriptor have its turn. Blocks for one turn of the event loop.

    ``gevent.sleep(0)`` does not: up to 50 such turns pass before gevent looks at descriptors and timers again.
    """
    hub = get_hub()
    with hub.loop.timer(0) as timer:
        hub.wait(timer)


def wait_for(watcher: Any, timeout_s: float | None) -> bool:
    """Blocks until the watcher's descriptor is ready; False if the time is over first."""
    if timeout_s is None:
        wait(watcher)
        return True
    waiter = Waiter()
    # A gevent.Timeout costs twice as much. As there, what is ready comes before a time that is over.
    with get_hub().loop.timer(max(0.0, timeout_s), priority=-1) as timer:
        timer.start(waiter.switch, False, update=True)
        watcher.start(waiter.switch, True)
        try:
            return bool(waiter.get())
        finally:
            watcher.stop()
