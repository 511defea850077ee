"""From "something may have changed" to new settings at work, or to a list of problems and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable

from gevent.event import Event
from gevent.threadpool import ThreadPool

from pomagent import events
from pomagent.deadline import Clock, Deadline
from pomagent.errors import ConfigError
from pomagent.log import Logger
from pomagent.plan import Plan
from pomagent.settings import Settings

QUIET_S = 0.25
"""Without a further change, before the files are read: editors write in several steps."""
QUIET_CAP_S = 2.0
"""After the first change they are read anyway."""

Load = Callable[[], Settings]
"""Reads and validates everything. Blocks its thread. Raises ConfigError."""
Apply = Callable[[Settings], Plan]
"""Puts settings to work, wholly or not at all. Raises ConfigError."""


class Reloader:
    """Keeps the running settings in step with the files; an invalid file changes nothing."""

    def __init__(
        self, load: Load, apply: Apply, follow: Callable[[Settings], None], log: Logger,
        clock: Clock = time.monotonic,
    ) -> None:  # fmt: skip
        """``follow`` is told which settings hold now, so that the right paths are watched."""
        self._load = load
        self._apply = apply
        self._follow = follow
        self._log = log
        self._clock = clock
        self._changed = Event()
        self._at_once = Event()
        self._threads = ThreadPool(1)  # its own: a slow file system must not delay DNS
        self._last_refused: tuple[str, ...] = ()
        self.current: Settings | None = None

    def notice(self) -> None:
        """Something may have changed: look once things are quiet. Does not block."""
        self._changed.set()

    def request(self) -> None:
        """An operator asks: look at once. Does not block."""
        self._at_once.set()
        self._changed.set()

    def start(self) -> Settings:
        """Load and apply the first settings. Blocks. Raises ConfigError."""
        settings = self.read()
        self._log.info(events.CONFIG_LOADED, path=settings.path, sha=settings.sha, routes=len(settings.routes))
        self._warn(settings)
        self._apply(settings)
        self.current = settings
        self._follow(settings)
        return settings

    def read(self) -> Settings:
        """The files as they are now, off the hub. Blocks. Raises ConfigError."""
        settings: Settings = self._threads.apply(self._load)
        return settings

    def run(self) -> None:
        """Reload whenever something changed. Never returns."""
        while True:
            self._changed.wait()
            self._wait_for_quiet()
            self._changed.clear()
            self._at_once.clear()
            self.reload()

    def reload(self) -> None:
        """Bring the running settings up to date, or log every problem. Blocks."""
        try:
            settings = self.read()
            if self.current is not None and settings.sha == self.current.sha:
                self._last_refused = ()
                self._log.debug(events.CONFIG_UNCHANGED, sha=settings.sha)
                return
            plan = self._apply(settings)
        except ConfigError as error:
            self._refuse(error)
            return
        self._last_refused = ()
        self.current = settings
        self._log.info(
            events.CONFIG_APPLIED, path=settings.path, sha=settings.sha, started=len(plan.started),
            replaced=len(plan.replaced), stopped=len(plan.stopped), kept=len(plan.kept),
        )  # fmt: skip
        self._warn(settings)
        self._follow(settings)

    def _refuse(self, error: ConfigError) -> None:
        """Say what is wrong, once: the poll comes back every few seconds."""
        problems = tuple(map(str, error.problems))
        if problems != self._last_refused:
            self._log.error(
                events.CONFIG_REJECTED, path=self.current.path if self.current else None, problems=list(problems)
            )
        self._last_refused = problems

    def _warn(self, settings: Settings) -> None:
        for warning in settings.warnings:
            self._log.warning(events.CONFIG_WARNED, warning=warning)

    def _wait_for_quiet(self) -> None:
        cap = Deadline(QUIET_CAP_S, self._clock)
        while not self._at_once.is_set() and not cap.is_over:
            self._changed.clear()
            if self._at_once.wait(min(QUIET_S, cap.remaining_s)) or not self._changed.is_set():
                return
