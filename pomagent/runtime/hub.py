"""Waits for the event loop: for one iteration, or for a descriptor."""

from __future__ import annotations

from typing import Any

from gevent import get_hub
from gevent.hub import Waiter
from gevent.socket import wait


def give_way() -> None:
    """Let other greenlets and ready descriptors run. Blocks for one iteration of the event loop.

    ``gevent.sleep(0)`` does not: gevent checks descriptors and timers only after up to 50 of its callbacks.
    """
    hub = get_hub()
    with hub.loop.timer(0) as timer:
        hub.wait(timer)


def wait_for(watcher: Any, timeout_s: float | None) -> bool:
    """Wait until the watcher's descriptor is ready, or return False after the timeout. Blocks."""
    if timeout_s is None:
        wait(watcher)
        return True
    waiter = Waiter()
    # A gevent.Timeout costs twice as much. As with it, a ready descriptor takes precedence over the timeout.
    with get_hub().loop.timer(max(0.0, timeout_s), priority=-1) as timer:
        timer.start(waiter.switch, False, update=True)
        watcher.start(waiter.switch, True)
        try:
            return bool(waiter.get())
        finally:
            watcher.stop()
