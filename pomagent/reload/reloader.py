"""From "something may have changed" to new settings at work, or to a list of problems and nothing else."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from pomagent.config.keys import LIVE, NEW_SESSIONS, REBIND, RESTART
from pomagent.errors import ConfigError, Problem
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.reload.key_changes import Change, changes
from pomagent.reload.plan import Plan, diff
from pomagent.runtime.deadline import Clock, Deadline
from pomagent.runtime.threads import Threads
from pomagent.settings import Settings

QUIET_S = 0.25
"""Without a further change, before the files are read: editors write in several steps."""
QUIET_CAP_S = 2.0
"""After the first change they are read anyway."""

Load = Callable[[], Settings]
"""Reads and validates everything. Blocks its thread. Raises ConfigError."""
Apply = Callable[[Settings], object]
"""Puts settings to work, wholly or not at all. Raises ConfigError."""


Follow = Callable[[frozenset[Path], tuple[str, ...]], None]
"""Watches these paths from now on, and in directories among them the names that match the patterns."""


class AcceptedFiles(Protocol):
    """Keeps accepted settings beyond the end of the process. Blocks its thread, and never raises."""

    def keep(self, settings: Settings) -> None: ...

    def recall(self) -> Settings | None:
        """What was kept, if it can still be used."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came, or would come, of one look at the files."""

    result: Literal["applied", "unchanged", "rejected"]
    plan: Plan = field(default_factory=Plan)
    changes: tuple[Change, ...] = ()
    problems: tuple[Problem, ...] = ()
    at: float = field(default_factory=time.time)
    """Seconds since the epoch."""


def compare(running: Settings, settings: Settings) -> Outcome:
    """What a reload leads to if every address can be bound. Raises ConfigError for what only a restart could do."""
    if settings.sha == running.sha:
        return Outcome("unchanged", plan=diff(running, settings))
    found = changes(running, settings)
    refused = [
        settings.problem(
            change.key, f'"{change.after}" takes effect at a restart only; restart, or put "{change.before}" back'
        )
        for change in found
        if change.apply == RESTART
    ]
    if refused:
        raise ConfigError(refused, settings.watched)
    return Outcome("applied", plan=diff(running, settings), changes=found)


class Reloader:
    """Keeps the running settings in step with the files; an invalid file changes nothing."""

    def __init__(
        self, load: Load, apply: Apply, follow: Follow, memory: AcceptedFiles, log: Logger,
        clock: Clock = time.monotonic,
    ) -> None:  # fmt: skip
        self._load = load
        self._apply = apply
        self._follow = follow
        self._memory = memory
        self._log = log
        self._clock = clock
        self._changed = Event()
        self._at_once = Event()
        self._notices = 0
        self._noticed_at = float("-inf")
        self._threads = Threads(1)  # its own: a slow file system must not delay DNS
        self._last_refused: tuple[str, ...] = ()
        self._reloading = BoundedSemaphore(1)
        self.current: Settings | None = None
        self.last: Outcome | None = None
        """Of the last reload that changed something, was rejected, or found a rejected file put right."""
        self.results: Counter[str] = Counter()
        """How often the files were looked at after the start, by what came of it."""
        self.applied_at = 0.0
        """When settings were last put to work, in seconds since the epoch."""

    def notice(self) -> None:
        """Something may have changed: look once things are quiet. Does not block."""
        self._notices += 1
        self._noticed_at = self._clock()
        self._changed.set()

    def request(self) -> None:
        """An operator asks: look at once. Does not block."""
        self._at_once.set()
        self._changed.set()

    def start(self) -> Settings:
        """Load and apply the first settings. Blocks. Raises ConfigError."""
        settings, watched = self._first()
        self._log.info(events.CONFIG_LOADED, path=settings.path, sha=settings.sha, routes=len(settings.routes))
        self._warn(settings)
        self._apply(settings)
        self.current, self.applied_at = settings, time.time()
        self._threads.call(self._memory.keep, settings)
        self._follow(settings.watched | watched, settings.patterns)
        return settings

    def _first(self) -> tuple[Settings, frozenset[Path]]:
        """The settings to start from, and what to watch beyond them: the last accepted ones if those ask for it."""
        try:
            return self.read(), frozenset()
        except ConfigError as error:
            settings = self._threads.call(self._memory.recall)
            if settings is None or not settings.agent.boot_from_last_good:
                raise
            self.last = Outcome("rejected", problems=error.problems)
            self._tell(error, is_asked=True)
            return settings, error.watched

    def read(self) -> Settings:
        """The files as they are now, off the hub. Blocks. Raises ConfigError."""
        return self._threads.call(self._load)

    def run(self) -> None:
        """Reload whenever something changed. Never returns."""
        while True:
            self._changed.wait()
            self._wait_for_quiet()
            self._changed.clear()
            is_asked = self._at_once.is_set()
            self._at_once.clear()
            try:
                self.reload(is_asked=is_asked)
            except Exception:  # noqa: BLE001 - the crash boundary of this greenlet: a bug costs one reload, not all
                gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())

    def reload(self, *, is_asked: bool = True) -> Outcome:
        """Bring the running settings up to date, or log every problem; say what came of it. Blocks.

        What nobody has asked for, the poll's look at a file that is still wrong, is not told twice.
        """
        with self._reloading:
            try:
                return self._bring_up_to_date()
            except ConfigError as error:
                outcome = Outcome("rejected", problems=error.problems)
                self._note(outcome)
                self._tell(error, is_asked=is_asked)
                self._follow(self._running.watched | error.watched, self._running.patterns + error.patterns)
                return outcome

    def hold(self) -> None:
        """Let no reload begin until ``let_go``. Blocks while one goes on."""
        self._reloading.acquire()

    def let_go(self) -> None:
        self._reloading.release()

    def preview(self) -> Outcome:
        """What ``reload`` would do now, as far as it can be known without trying to bind. Blocks."""
        try:
            return self._threads.call(compare, self._running, self.read())
        except ConfigError as error:
            return Outcome("rejected", problems=error.problems)

    def _bring_up_to_date(self) -> Outcome:
        settings = self.read()
        outcome = self._threads.call(compare, self._running, settings)
        if outcome.result == "unchanged":
            self._note(outcome)
            self._last_refused = ()
            self._log.debug(events.CONFIG_UNCHANGED, sha=settings.sha)
            if settings.watched != self._running.watched:  # a new directory, with nothing in it yet
                self._follow(settings.watched, settings.patterns)
            return outcome
        self._apply(settings)
        self._last_refused = ()
        self.current, self.applied_at = settings, time.time()
        self._note(outcome)
        counts = Counter(change.apply for change in outcome.changes)
        self._log.info(
            events.CONFIG_APPLIED, path=settings.path, sha=settings.sha, started=len(outcome.plan.started),
            replaced=len(outcome.plan.replaced), stopped=len(outcome.plan.stopped), kept=len(outcome.plan.kept),
            live=counts[LIVE], new_sessions=counts[NEW_SESSIONS], rebind=counts[REBIND],
        )  # fmt: skip
        self._warn(settings)
        self._threads.call(self._memory.keep, settings)
        self._follow(settings.watched, settings.patterns)
        return outcome

    def _note(self, outcome: Outcome) -> None:
        """Keep what came of a look at the files for the status, before the log tells of it."""
        self.results[outcome.result] += 1
        if outcome.result != "unchanged" or (self.last and self.last.result == "rejected"):
            self.last = outcome

    def _tell(self, error: ConfigError, *, is_asked: bool) -> None:
        problems = tuple(map(str, error.problems))
        if is_asked or problems != self._last_refused:
            self._log.error(events.CONFIG_REJECTED, problems=list(problems))
        self._last_refused = problems

    @property
    def _running(self) -> Settings:
        assert self.current is not None, "a reload comes after the start"
        return self.current

    def _warn(self, settings: Settings) -> None:
        for warning in settings.warnings:
            self._log.warning(events.CONFIG_WARNED, warning=warning)

    def _wait_for_quiet(self) -> None:
        cap = Deadline(QUIET_CAP_S, self._clock)
        while not self._at_once.is_set() and not cap.is_over:
            seen, quiet_in_s = self._notices, self._noticed_at + QUIET_S - self._clock()
            if quiet_in_s <= 0 or self._at_once.wait(min(quiet_in_s, cap.remaining_s)) or seen == self._notices:
                return
