"""Paces the attempts to bind an address that was not available."""

from __future__ import annotations

from collections.abc import Callable

import gevent

REBIND_FIRST_S, REBIND_MAX_S = 1.0, 30.0
"""Seconds before the first attempt, and the maximum between two attempts after doubling."""


def keep_binding(attempt: Callable[[float], bool], wait: Callable[[float], object] = gevent.sleep) -> None:
    """Call ``attempt`` after growing pauses until it returns False; it gets the next pause in seconds. Blocks."""
    pause_s = REBIND_FIRST_S
    while True:
        wait(pause_s)
        pause_s = min(REBIND_MAX_S, pause_s * 2)
        if not attempt(pause_s):
            return
