"""Searches the process list for secrets in arguments, and in variables that no test set, while tests run.

Programs that live for some milliseconds between two searches are missed. The arguments of processes that the test
process starts itself are searched when they start (``secret_scan``).
"""

import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.gateway import minted

NAME = "process list"
"""Name of the thread, which starts with the first process of a test and lasts for the session."""
INTERVAL_S = 0.05
MOST_BYTES = 1 << 20
YOUNG_S = 2.0
"""Seconds during which a process is searched again, because it may exec another program."""

_given: set[str] = set()
"""Variables with which tests passed a secret to a process, such as those of ``credentials.*.env``."""
_seen: dict[str, float] = {}
_searched: dict[str, str] = {}
"""Last arguments of young processes: with the same arguments a process counts as the same program."""
_one_look = threading.Lock()
"""Held during a search, so that a second caller returns only after the search has ended."""
_watcher: list[threading.Thread] = []
_stop = threading.Event()


def expect(environment: Mapping[str, str]) -> None:
    """Allow the variables in this environment that hold secrets."""
    _given.update(name for name, value in environment.items() if minted.is_in(value))


def watch() -> None:
    """Start the thread that searches all processes."""
    if not _watcher:
        _watcher.append(threading.Thread(target=_keep_looking, name=NAME, daemon=True))
        _watcher[0].start()


def stop() -> None:
    """Stop the thread for good. Blocks."""
    _stop.set()
    for thread in _watcher:
        thread.join()


def look() -> None:
    """Search every process that is new or young."""
    with _one_look:
        now = time.monotonic()
        present = {name for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 - as in _read
        for pid in _seen.keys() - present:
            _seen.pop(pid, None)
            _searched.pop(pid, None)
        for pid in present:
            if now - _seen.setdefault(pid, now) < YOUNG_S:
                _look_at(pid)
            else:
                _searched.pop(pid, None)


def _look_at(pid: str) -> None:
    arguments = _read(pid, "cmdline")
    if _searched.get(pid) == arguments:
        return
    _searched[pid] = arguments
    minted.search(arguments, f"the arguments of process {pid}")
    environment = _read(pid, "environ")
    if not minted.is_in(environment):
        return
    for variable in environment.split("\0"):
        name, _, value = variable.partition("=")
        if name not in _given:
            minted.search(value, f"the variable {name} of process {pid}")


def _read(pid: str, what: str) -> str:
    """Return a file of /proc. Without pathlib, because there are twenty searches a second."""
    try:
        file = os.open(f"/proc/{pid}/{what}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # it has ended, or is another user's
        return ""
    try:
        return os.read(file, MOST_BYTES).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(file)


def _keep_looking() -> None:
    while not _stop.wait(INTERVAL_S):
        look()


def arguments_of(command: object) -> Iterable[str]:
    """Return the arguments of any command that ``subprocess`` accepts."""
    return [str(command)] if isinstance(command, str | bytes | Path) else map(str, command)  # type: ignore[call-overload]
