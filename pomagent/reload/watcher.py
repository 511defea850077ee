"""Notices that watched files may have changed, and says so: "look again", never what or how.

inotify (by watchdog, in real threads) makes it prompt, a slow poll makes it certain. Whoever is told waits for a quiet
moment and compares contents; being told once too often costs nothing.
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
PATTERNS: Final = ("*.toml",)
REST_S: Final = 1.0  # what changes and nobody tells of may be half-written: its writer has not closed it yet
RESTLESS_LOOKS: Final = 10  # then it counts all the same: a missed change must be impossible
LOOK_PAUSE_S: Final = 0.05  # between two looks, so that a file that never rests costs no core
SETTLE_ROUNDS: Final = 3  # links may be swapped while they are followed; the poll catches what still moves
CLOSE_TIMEOUT_S: Final = 2.0  # watchdog holds back unpaired renames for 0.5 s; a dead file server holds for ever

# Not "modified": a log that is written in the same directory would wake three threads per line. A writer closes sooner
# or later; changed permissions, and files that stay open, are found by the poll.
KINDS: Final[list[type[FileSystemEvent]]] = [
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
]


class Watch:
    """Calls ``on_change`` in the hub whenever a watched path may have changed; it must not block."""

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
        self._trap = _Trap(self._async.send, log.bind(poll_ms=round(poll_interval_s * 1000)), make_observer)
        self._worker = ThreadPool(1, hub)
        self._group = Group()
        self._group.spawn(self._keep_looking).name = "watch"

    def watch(self, paths: frozenset[Path], patterns: tuple[str, ...] = PATTERNS) -> None:
        """Replaces what is watched; a file that is changed after this returns is noticed. Blocks.

        Of the directories among the paths, entries whose names match ``patterns`` are watched too, those yet to come
        included. A changed set counts as a change: something may have happened between the caller's reading and this
        arming.
        """
        self._paths, self._patterns = paths, patterns
        self._tell_of(self._read())

    def close(self) -> None:
        """Stops watching. Blocks, at most for CLOSE_TIMEOUT_S."""
        self._group.kill(timeout=CLOSE_TIMEOUT_S)
        self._async.stop()
        with gevent.Timeout(CLOSE_TIMEOUT_S, exception=False):
            self._worker.apply(self._trap.close)
            self._worker.kill()
            self._async.close()  # only now: no thread is left that might send

    def _keep_looking(self) -> None:
        while True:
            is_told = self._look_again.wait(self._poll_interval_s)
            self._look_again.clear()
            try:
                self._tell_of(self._read() if is_told else self._read_at_rest(), is_told=is_told)
            except Exception:  # noqa: BLE001 - the crash boundary of this greenlet: the next look finds what this missed
                gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())
            gevent.sleep(LOOK_PAUSE_S)

    def _tell_of(self, found: Fingerprint, *, is_told: bool = False) -> None:
        """An event counts even if nothing has changed: somebody may have read what was there for a moment."""
        if is_told or found != self._fingerprint:
            self._fingerprint = found
            self._on_change()

    def _read_at_rest(self) -> Fingerprint:
        """What two looks in a row agree on, or the last one."""
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
        """In the worker: arms first, so that what changes after the reading is an event."""
        before = None
        for _ in range(SETTLE_ROUNDS):
            now = survey(self._paths, self._patterns)
            if now == before:
                break
            self._trap.arm(now)
            before = now
        return fingerprint(self._paths, self._patterns)


class _Trap(FileSystemEventHandler):
    """The inotify side: one watch per directory of a survey. Lives in the worker's and watchdog's threads."""

    def __init__(self, spring: Callable[[], None], log: Logger, make_observer: Callable[[], BaseObserver]) -> None:
        self._spring = spring
        self._log = log
        self._make_observer = make_observer
        self._observer: BaseObserver | None = None
        self._survey = Survey({}, frozenset(), ())
        self._armed: dict[str, tuple[ObservedWatch, tuple[int, int]]] = {}
        self._replaced: deque[str] = deque()
        """Directories that were moved or deleted: a new one at the path may even have the old one's inode."""
        self._is_degraded = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Runs in watchdog's thread."""
        paths = [os.fsdecode(path) for path in (event.src_path, event.dest_path) if path]
        self._replaced.extend(path for path in paths if path in self._survey.names)
        if any(path in self._survey.names or self._survey.concerns(path) for path in paths):
            self._spring()

    def arm(self, now: Survey) -> None:
        """Watches the directories of a survey, and no others."""
        self._survey = now
        replaced = {self._replaced.popleft() for _ in range(len(self._replaced))}
        for directory in list(self._armed):
            if directory not in now.names or directory in replaced or self._has_moved(directory):
                self._disarm(directory)
        failures = [self._try_to_arm(directory) for directory in now.names if directory not in self._armed]
        self._tell(next(filter(None, failures), None))

    def close(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def _try_to_arm(self, directory: str) -> Exception | None:
        try:
            identity = _identity(directory)
            watch = self._running_observer().schedule(self, directory, event_filter=KINDS)
        except (OSError, RuntimeError) as error:  # the limits of inotify; no more threads
            is_gone = isinstance(error, OSError) and error.errno in {errno.ENOENT, errno.ENOTDIR}
            return None if is_gone else error  # its parent is watched too and tells when it is back
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

    def _tell(self, failure: Exception | None) -> None:
        """Logs the first failure of a series."""
        if failure is not None and not self._is_degraded:
            self._log.warning(events.WATCH_DEGRADED, error=failure)
        self._is_degraded = failure is not None


def _identity(directory: str) -> tuple[int, int]:
    found = Path(directory).stat()
    return found.st_dev, found.st_ino
