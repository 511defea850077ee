"""Gives the calling thread and its children a network with one loopback device."""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.support.agent import processes

CLONE_NEWNET = 0x40000000
WayOut = Callable[[], AbstractContextManager[None]]
"""Returns a context manager that re-enters the outer network, for downloads."""
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def lonely_network() -> Iterator[WayOut]:
    """Enter a network in which every port is free and no other host can be reached. Needs root."""
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    _check(_LIBC.unshare(CLONE_NEWNET))
    try:
        processes.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)
        yield lambda: _inside(outside)
    finally:
        _check(_LIBC.setns(outside, CLONE_NEWNET))
        os.close(outside)


@contextmanager
def _inside(network: int) -> Iterator[None]:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    _check(_LIBC.setns(network, CLONE_NEWNET))
    try:
        yield
    finally:
        _check(_LIBC.setns(before, CLONE_NEWNET))
        os.close(before)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no network namespace: {os.strerror(number)}")
