"""Waiting for conditions, never for time."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

import gevent

TIMEOUT_FACTOR = float(os.environ.get("POMAGENT_TEST_TIMEOUT_FACTOR", "1"))
POLL_S = 0.01

T = TypeVar("T")


def scaled(timeout_s: float) -> float:
    """The timeout on this machine. POMAGENT_TEST_TIMEOUT_FACTOR stretches all of them together."""
    return timeout_s * TIMEOUT_FACTOR


def wait_until(condition: Callable[[], T], timeout: float = 10, what: str = "") -> T:
    """Return the first true value of the condition, or fail when the scaled timeout has passed.

    Lets other greenlets of this thread run meanwhile, so an agent in the same process goes on.
    """
    end = time.monotonic() + scaled(timeout)
    while True:
        if value := condition():
            return value
        if time.monotonic() > end:
            raise AssertionError(
                f"not within {scaled(timeout):g} s: {what or getattr(condition, '__name__', condition)}"
            )
        gevent.sleep(POLL_S)
