"""Looks at the process list while tests run: nobody's arguments may hold a secret, nor a variable that no test set.

Programs that live for some milliseconds between two looks are not seen; those that this process starts itself are
looked at as they start (``secret_scan``).
"""

import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.gateway import minted

NAME = "process list"
"""Of the thread, which comes with the first process that a test starts, and stays."""
INTERVAL_S = 0.05
MOST_BYTES = 1 << 20
YOUNG_S = 2.0
"""So long a process is looked at again, for it may become another program."""

_given: set[str] = set()
"""The variables by which tests have handed a secret to a process, such as those of ``credentials.*.env``."""
_seen: dict[str, float] = {}
_searched: dict[str, str] = {}
"""The arguments of the young ones at the last look: who still has the same is taken for the same program."""
_one_look = threading.Lock()
"""Held by whoever looks: who looks now is not to be told "searched" while another thread still searches."""
_watcher: list[threading.Thread] = []
_stop = threading.Event()


def expect(environment: Mapping[str, str]) -> None:
    """A test hands these variables to a process, secrets included."""
    _given.update(name for name, value in environment.items() if minted.is_in(value))


def watch() -> None:
    """Look at all processes from now on, again and again."""
    if not _watcher:
        _watcher.append(threading.Thread(target=_keep_looking, name=NAME, daemon=True))
        _watcher[0].start()


def stop() -> None:
    """Look no more, for good."""
    _stop.set()
    for thread in _watcher:
        thread.join()


def look() -> None:
    """Look at every process that is new."""
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
    """Of /proc; without pathlib, since there are twenty looks a second at all that is young."""
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
    """Of whatever ``subprocess`` takes as a command."""
    return [str(command)] if isinstance(command, str | bytes | Path) else map(str, command)  # type: ignore[call-overload]
