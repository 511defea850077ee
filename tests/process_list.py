"""Looks at the process list while tests run: nobody's arguments may hold a secret, nor a variable that no test set.

Programs that live for some milliseconds between two looks are not seen; those that this process starts itself are
looked at as they start (``secret_scan``).
"""

import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.gateway import minted

INTERVAL_S = 0.05
YOUNG_S = 2.0
"""So long a process is looked at again, for it may become another program."""

_PROC = Path("/proc")
_given: set[str] = set()
"""The variables by which tests have handed a secret to a process, such as those of ``credentials.*.env``."""
_seen: dict[str, float] = {}
_searched: dict[str, tuple[str, str]] = {}
"""What the young ones showed at the last look, which need not be searched again: there are twenty looks a second."""
_watcher: list[threading.Thread] = []
_stop = threading.Event()


def expect(environment: Mapping[str, str]) -> None:
    """A test hands these variables to a process, secrets included."""
    _given.update(name for name, value in environment.items() if minted.is_in(value))


def watch() -> None:
    """Look at all processes from now on, again and again."""
    if not _watcher:
        _watcher.append(threading.Thread(target=_keep_looking, name="process list", daemon=True))
        _watcher[0].start()


def stop() -> None:
    """Look no more, for good."""
    _stop.set()
    for thread in _watcher:
        thread.join()


def look() -> None:
    """Look at every process that is new."""
    now = time.monotonic()
    present = {entry.name for entry in _PROC.iterdir() if entry.name.isdigit()}
    for pid in _seen.keys() - present:
        _seen.pop(pid, None)
        _searched.pop(pid, None)
    for pid in present:
        if now - _seen.setdefault(pid, now) < YOUNG_S:
            _look_at(pid)
        else:
            _searched.pop(pid, None)


def _look_at(pid: str) -> None:
    shown = _read(pid, "cmdline"), _read(pid, "environ")
    if _searched.get(pid) == shown:
        return
    _searched[pid] = shown
    arguments, environment = shown
    minted.search(arguments, f"the arguments of process {pid}")
    for variable in environment.split("\0"):
        name, _, value = variable.partition("=")
        if name not in _given:
            minted.search(value, f"the variable {name} of process {pid}")


def _read(pid: str, what: str) -> str:
    try:
        return (_PROC / pid / what).read_text(errors="replace")
    except OSError:  # it has ended, or is another user's
        return ""


def _keep_looking() -> None:
    while not _stop.wait(INTERVAL_S):
        look()


def arguments_of(command: object) -> Iterable[str]:
    """Of whatever ``subprocess`` takes as a command."""
    return [str(command)] if isinstance(command, str | bytes | Path) else map(str, command)  # type: ignore[call-overload]
