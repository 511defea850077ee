"""Keeps the running settings in step with the files: an edit is read, compared and applied, or rejected whole."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from pomagent.config.keys import LIVE, NEW_SESSIONS, REBIND
from pomagent.config.load import InputsMissing
from pomagent.errors import ConfigError
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.reload.outcome import Outcome, ReloadCrashed, bugs_as_rejections, compare, report_bug
from pomagent.reload.plan import Plan, diff
from pomagent.runtime.deadline import Clock, Deadline
from pomagent.runtime.threads import Threads
from pomagent.settings import Settings

QUIET_S = 0.25
"""Seconds without a further change before the files are read, because editors write in several steps."""
QUIET_CAP_S = 2.0
"""Seconds after the first change when the files are read even if they still change."""

Load = Callable[[], Settings]
"""Read and validate all files. Blocks its thread. Raises ConfigError."""
Apply = Callable[[Settings, Plan], object]
"""Put settings to work, wholly or not at all. Blocks. Raises ConfigError."""
Follow = Callable[[frozenset[Path], tuple[str, ...]], None]
"""Watch these paths instead of the former ones. In directories among them, watch names that match the patterns."""


class LastGoodStore(Protocol):
    """Keeps accepted settings beyond the end of the process. Blocks its thread and never raises."""

    def save(self, settings: Settings) -> None: ...

    def restore(self) -> Settings | None:
        """Return the saved settings, or None if they are missing or unusable."""


class Reloader:
    """Applies the files after each edit. A rejected file leaves the running settings as they are."""

    def __init__(
        self, load: Load, apply: Apply, follow: Follow, last_good: LastGoodStore, log: Logger,
        clock: Clock = time.monotonic,
    ) -> None:  # fmt: skip
        self._load = load
        self._apply = apply
        self._follow = follow
        self._last_good = last_good
        self._log = log
        self._clock = clock
        self._changed = Event()
        self._requested = Event()
        self._notice_count = 0
        self._noticed_at = float("-inf")
        self._threads = Threads(1)  # not shared: a slow file system must not delay DNS
        self._logged_problems: tuple[str, ...] = ()
        self._reloading = BoundedSemaphore(1)
        self._is_half_applied = False  # by a bug, so that files that are put back have to be applied, too
        self.current: Settings | None = None
        self.last: Outcome | None = None
        """The last reload that applied something, was rejected, or found a rejected file corrected."""
        self.results: Counter[str] = Counter()
        """Reloads since the start, by result."""
        self.applied_at = 0.0
        """When settings were last applied, in seconds since the epoch."""

    def notice(self) -> None:
        """Reload once the files have stopped changing. Does not block."""
        self._notice_count += 1
        self._noticed_at = self._clock()
        self._changed.set()

    def request(self) -> None:
        """Reload at once, on an operator's request. Does not block."""
        self._requested.set()
        self._changed.set()

    def start(self) -> Settings:
        """Load and apply the first settings. Blocks. Raises ConfigError."""
        settings, rejection = self._first()
        self._log.info(events.CONFIG_LOADED, path=settings.path, sha=settings.sha, routes=len(settings.routes))
        self._warn(settings)
        self._apply(settings, diff(None, settings))
        self.current, self.applied_at = settings, time.time()
        self._threads.call(self._last_good.save, settings)
        if rejection is None:
            self._follow(settings.watched, settings.patterns)
        else:
            self._follow(settings.watched | rejection.watched, settings.patterns + rejection.patterns)
        return settings

    def _first(self) -> tuple[Settings, ConfigError | None]:
        """Return the settings to start from, and the error if they are not those of the files.

        If the files are invalid, the last good settings are used, provided that they ask for it themselves.
        """
        try:
            return self.read(), None
        except InputsMissing as error:
            return error.settings, None  # its warnings name what is missing
        except ConfigError as error:
            settings = self._threads.call(self._last_good.restore)
            if settings is None or not settings.agent.boot_from_last_good:
                raise
            self.last = Outcome("rejected", problems=error.problems)
            self._log_rejection(error, is_requested=True)
            return settings, error

    def read(self) -> Settings:
        """Load the files in a thread. Blocks. Raises ConfigError."""
        return self._threads.call(self._load)

    def _read_next(self) -> Settings:
        """Load the files. Credentials and certificates may be missing only if those that run wait for them, too.

        Blocks. Raises ConfigError.
        """
        try:
            return self.read()
        except InputsMissing as error:
            awaited = {problem.key for problem in self._running.waits_for}
            if all(problem.key in awaited for problem in error.problems):
                return error.settings
            raise

    def run(self) -> None:
        """Reload after each notice and request. Never returns."""
        while True:
            self._changed.wait()
            self._wait_for_quiet()
            self._changed.clear()
            is_requested = self._requested.is_set()
            self._requested.clear()
            self._contain(partial(self.reload, is_requested=is_requested))

    def reload(self, *, is_requested: bool = True) -> Outcome:
        """Apply the files, or log every problem and change nothing. Blocks.

        The same problems are logged again on request only, not each time that the poll finds them.
        """
        with self._reloading:
            settings: Settings | None = None
            try:
                with bugs_as_rejections(self._running.path):
                    settings = self._read_next()
                    outcome = self._threads.call(compare, self._running, settings)
                    if outcome.result == "applied" or self._is_half_applied:
                        self._apply(settings, outcome.plan)
            except ConfigError as error:
                self._is_half_applied |= isinstance(error, ReloadCrashed) and settings is not None
                return self._reject(error, settings, is_requested=is_requested)
            self._is_half_applied = False
            self._logged_problems = ()
            if outcome.result == "unchanged":
                self._note_unchanged(settings, outcome)
            else:
                self._note_applied(settings, outcome)
            return outcome

    def suspend(self) -> None:
        """Begin no reload until ``resume``. Blocks while one is under way."""
        self._reloading.acquire()

    def resume(self) -> None:
        self._reloading.release()

    def preview(self) -> Outcome:
        """Return what ``reload`` would do now, without trying to bind. Blocks."""
        try:
            with bugs_as_rejections(self._running.path):
                return self._threads.call(compare, self._running, self._read_next())
        except ConfigError as error:
            report_bug(error)
            return Outcome("rejected", problems=error.problems)

    def _note_unchanged(self, settings: Settings, outcome: Outcome) -> None:
        self._record(outcome)
        self._log.debug(events.CONFIG_UNCHANGED, sha=settings.sha)
        if settings.watched != self._running.watched:  # a new directory, which has no files yet
            self._contain(lambda: self._follow(settings.watched, settings.patterns))

    def _note_applied(self, settings: Settings, outcome: Outcome) -> None:
        self.current, self.applied_at = settings, time.time()
        self._record(outcome)
        counts = Counter(change.apply for change in outcome.changes)
        self._log.info(
            events.CONFIG_APPLIED, path=settings.path, sha=settings.sha, started=len(outcome.plan.started),
            replaced=len(outcome.plan.replaced), stopped=len(outcome.plan.stopped), kept=len(outcome.plan.kept),
            live=counts[LIVE], new_sessions=counts[NEW_SESSIONS], rebind=counts[REBIND],
        )  # fmt: skip
        self._warn(settings)
        self._contain(lambda: self._threads.call(self._last_good.save, settings))
        self._contain(lambda: self._follow(settings.watched, settings.patterns))

    def _reject(self, error: ConfigError, settings: Settings | None, *, is_requested: bool) -> Outcome:
        """Go on with the running settings. ``settings`` are the rejected ones, if the files could be loaded."""
        outcome = Outcome("rejected", problems=error.problems)
        self._record(outcome)
        self._log_rejection(error, is_requested=is_requested)
        watched, patterns = self._running.watched | error.watched, self._running.patterns + error.patterns
        if settings is not None:
            watched, patterns = watched | settings.watched, tuple(dict.fromkeys(patterns + settings.patterns))
        self._contain(lambda: self._follow(watched, patterns))
        return outcome

    def _record(self, outcome: Outcome) -> None:
        """Update what the status shows. Precedes the log line, which may prompt an operator to ask for the status."""
        self.results[outcome.result] += 1
        if outcome.result != "unchanged" or (self.last and self.last.result == "rejected"):
            self.last = outcome

    def _log_rejection(self, error: ConfigError, *, is_requested: bool) -> None:
        problems = tuple(map(str, error.problems))
        if is_requested or problems != self._logged_problems:
            report_bug(error)
            self._log.error(events.CONFIG_REJECTED, problems=list(problems))
        self._logged_problems = problems

    @property
    def _running(self) -> Settings:
        assert self.current is not None, "a reload comes after the start"
        return self.current

    def _warn(self, settings: Settings) -> None:
        for warning in settings.warnings:
            self._log.warning(events.CONFIG_WARNED, warning=warning)

    def _contain(self, step: Callable[[], object]) -> None:
        """Run a step; a bug in it is logged and costs this step only."""
        try:
            step()
        except Exception:  # noqa: BLE001 - a crash boundary: the outcome of the reload stands, and the next one comes
            gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())

    def _wait_for_quiet(self) -> None:
        cap = Deadline(QUIET_CAP_S, self._clock)
        while not self._requested.is_set() and not cap.is_over:
            count, quiet_in_s = self._notice_count, self._noticed_at + QUIET_S - self._clock()
            if quiet_in_s <= 0 or self._requested.wait(min(quiet_in_s, cap.remaining_s)) or count == self._notice_count:
                return
