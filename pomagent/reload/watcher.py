"""Notices that watched files may have changed, without determining which or how.

inotify (by watchdog, in real threads) makes it prompt, and a slow poll makes it certain. The reloader waits until the
files are quiet and compares their contents, so a superfluous notice costs nothing.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import gevent
from gevent.event import Event
from gevent.pool import Group
from gevent.threadpool import ThreadPool
from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.reload.fingerprint import Fingerprint, Survey, fingerprint, survey

POLL_INTERVAL_S: Final = 10.0
"""Seconds between two polls."""
PATTERNS: Final = ("*.toml",)
REST_S: Final = 1.0
"""Seconds between two readings of files that change without events: their writer has not closed them yet."""
RESTLESS_LOOKS: Final = 10
"""Readings after which such a change counts even if the file still changes, so that none is ever missed."""
LOOK_PAUSE_S: Final = 0.05
"""Seconds between two readings, so that a file that changes all the time does not occupy a core."""
SETTLE_ROUNDS: Final = 3
"""Maximum surveys until two agree, because links may be swapped meanwhile; later changes are left to the poll."""
CLOSE_TIMEOUT_S: Final = 2.0
"""Seconds for the threads to end: watchdog delays unpaired renames by 0.5 s, and a dead file server never answers."""

KINDS: Final[list[type[FileSystemEvent]]] = [
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
]
"""The events that count. Not "modified", because each line of a log in the same directory would wake three threads.

The poll finds changed permissions and files that stay open.
"""


class Watch:
    """Calls ``on_change``, which must not block, in the hub whenever a watched path may have changed."""

    def __init__(
        self,
        on_change: Callable[[], None],
        log: Logger,
        *,
        poll_interval_s: float = POLL_INTERVAL_S,
        make_observer: Callable[[], BaseObserver] = Observer,
    ) -> None:
        hub = gevent.get_hub()
        self._on_change = on_change
        self._poll_interval_s = poll_interval_s
        self._paths: frozenset[Path] = frozenset()
        self._patterns: tuple[str, ...] = PATTERNS
        self._fingerprint: Fingerprint = {}
        self._look_again = Event()
        self._async = hub.loop.async_()
        self._async.start(self._look_again.set)
        self._inotify = _Inotify(self._async.send, log.bind(poll_ms=round(poll_interval_s * 1000)), make_observer)
        self._worker = ThreadPool(1, hub)
        self._group = Group()
        self._group.spawn(self._keep_looking).name = "watch"

    def watch(self, paths: frozenset[Path], patterns: tuple[str, ...] = PATTERNS) -> None:
        """Replace the watched paths. A file that is changed after this returns is noticed. Blocks.

        In directories among the paths, entries that match ``patterns`` are watched, too, even future ones. A changed
        set of paths counts as a change, because files may have changed after the caller read them.
        """
        self._paths, self._patterns = paths, patterns
        self._compare(self._read())

    def close(self) -> None:
        """Stop watching. Blocks for at most CLOSE_TIMEOUT_S."""
        self._group.kill(timeout=CLOSE_TIMEOUT_S)
        self._async.stop()
        with gevent.Timeout(CLOSE_TIMEOUT_S, exception=False):
            self._worker.apply(self._inotify.close)
            self._worker.kill()
            self._async.close()  # last: a thread that still ran could send

    def _keep_looking(self) -> None:
        while True:
            has_event = self._look_again.wait(self._poll_interval_s)
            self._look_again.clear()
            try:
                self._compare(self._read() if has_event else self._read_at_rest(), has_event=has_event)
            except Exception:  # noqa: BLE001 - the crash boundary of this greenlet: the next reading finds what this one missed
                gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())
            gevent.sleep(LOOK_PAUSE_S)

    def _compare(self, found: Fingerprint, *, has_event: bool = False) -> None:
        """Call ``on_change`` after a change. An event always counts: the reloader may have read a short-lived state."""
        if has_event or found != self._fingerprint:
            self._fingerprint = found
            self._on_change()

    def _read_at_rest(self) -> Fingerprint:
        """Return a fingerprint once two readings agree, or the last one. Blocks."""
        before = self._fingerprint
        for _ in range(RESTLESS_LOOKS):
            found = self._read()
            if found == before or self._look_again.wait(min(REST_S, self._poll_interval_s)):
                break
            before = found
        return found

    def _read(self) -> Fingerprint:
        found: Fingerprint = self._worker.apply(self._arm_and_read)
        return found

    def _arm_and_read(self) -> Fingerprint:
        """Arm inotify before reading, so that a later change causes an event. Runs in the worker."""
        before = None
        for _ in range(SETTLE_ROUNDS):
            now = survey(self._paths, self._patterns)
            if now == before:
                break
            self._inotify.arm(now)
            before = now
        return fingerprint(self._paths, self._patterns)


class _Inotify(FileSystemEventHandler):
    """Holds one inotify watch per directory of a survey. Runs in the threads of the worker and of watchdog."""

    def __init__(self, on_event: Callable[[], None], log: Logger, make_observer: Callable[[], BaseObserver]) -> None:
        self._on_event = on_event
        self._log = log
        self._make_observer = make_observer
        self._observer: BaseObserver | None = None
        self._survey = Survey({}, frozenset(), ())
        self._armed: dict[str, tuple[ObservedWatch, tuple[int, int]]] = {}
        self._replaced: deque[str] = deque()
        """Directories that were moved or deleted. A new one at the path may have the same inode number."""
        self._is_degraded = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Report an event that concerns a watched path. Runs in watchdog's thread."""
        paths = [os.fsdecode(path) for path in (event.src_path, event.dest_path) if path]
        self._replaced.extend(path for path in paths if path in self._survey.names)
        if any(path in self._survey.names or self._survey.concerns(path) for path in paths):
            self._on_event()

    def arm(self, now: Survey) -> None:
        """Watch exactly the directories of a survey."""
        self._survey = now
        replaced = {self._replaced.popleft() for _ in range(len(self._replaced))}
        for directory in list(self._armed):
            if directory not in now.names or directory in replaced or self._has_moved(directory):
                self._disarm(directory)
        failures = [self._try_to_arm(directory) for directory in now.names if directory not in self._armed]
        self._log_failure(next(filter(None, failures), None))

    def close(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def _try_to_arm(self, directory: str) -> Exception | None:
        try:
            identity = _identity(directory)
            watch = self._running_observer().schedule(self, directory, event_filter=KINDS)
        except (OSError, RuntimeError) as error:  # a limit of inotify or of threads
            is_gone = isinstance(error, OSError) and error.errno in {errno.ENOENT, errno.ENOTDIR}
            return None if is_gone else error  # its parent is watched and reports its return
        self._armed[directory] = watch, identity
        return None

    def _running_observer(self) -> BaseObserver:
        if self._observer is None:
            observer = self._make_observer()
            observer.start()
            self._observer = observer
        return self._observer

    def _has_moved(self, directory: str) -> bool:
        try:
            return _identity(directory) != self._armed[directory][1]
        except OSError:
            return True

    def _disarm(self, directory: str) -> None:
        watch, _ = self._armed.pop(directory)
        if self._observer is not None:
            self._observer.unschedule(watch)

    def _log_failure(self, failure: Exception | None) -> None:
        """Log the first failure of a series."""
        if failure is not None and not self._is_degraded:
            self._log.warning(events.WATCH_DEGRADED, error=failure)
        self._is_degraded = failure is not None


def _identity(directory: str) -> tuple[int, int]:
    found = Path(directory).stat()
    return found.st_dev, found.st_ino
