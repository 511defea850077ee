"""Runs an agent that measures the longest turn of its event loop, and reads the result.

A turn runs everything that is ready. Its wall time includes the time of other processes. Its processor time is the
agent's own.
"""

import mmap
import struct
import sys
import time
from pathlib import Path

from gevent import get_hub

_LONGEST = struct.Struct("dd")


class Stalls:
    """Longest turn so far, in seconds, in a file shared by two processes."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            file.truncate(_LONGEST.size)
            self._shared = mmap.mmap(file.fileno(), _LONGEST.size)

    @property
    def cpu_s(self) -> float:
        return float(_LONGEST.unpack(self._shared[:])[0])

    @property
    def wall_s(self) -> float:
        return float(_LONGEST.unpack(self._shared[:])[1])

    def note(self, cpu_s: float, wall_s: float) -> None:
        self._shared[:] = _LONGEST.pack(max(cpu_s, self.cpu_s), max(wall_s, self.wall_s))

    def forget(self) -> None:
        self._shared[:] = _LONGEST.pack(0, 0)


def program(path: str) -> tuple[str, ...]:
    """Return the command of an agent that counts into this file."""
    return sys.executable, "-m", "scripts.bench_stalls", path


def _watch(stalls: Stalls) -> None:
    """Measure this thread's hub from now on, from the end of each wait for descriptors to the start of the next."""
    loop = get_hub().loop
    began_wall = began_cpu = 0.0

    def woken() -> None:
        nonlocal began_wall, began_cpu
        began_wall, began_cpu = time.monotonic(), time.thread_time()

    def resting() -> None:
        if began_wall:
            stalls.note(time.thread_time() - began_cpu, time.monotonic() - began_wall)

    _watch.watchers = watchers = (loop.check(), loop.prepare())  # type: ignore[attr-defined]  # kept alive
    watchers[0].start(woken)
    watchers[1].priority = -2  # after the loop's own watcher, which runs what is ready
    watchers[1].start(resting)


if __name__ == "__main__":
    shared = sys.argv.pop(1)
    _watch(Stalls(shared))
    from pomagent.cli import main

    sys.exit(main())
