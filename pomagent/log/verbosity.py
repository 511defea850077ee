"""Sets the log level: that of the file, or temporarily that of an operator."""

from __future__ import annotations

from typing import Final

import gevent
from gevent.pool import Group

from pomagent.log.logger import LevelName, LogLevel

LEVELS: Final[tuple[LevelName, ...]] = ("debug", "info", "warning", "error")
"""Levels that the file and an operator can set."""


class Verbosity:
    """Sets one ``LogLevel``. An operator's level survives reloads, until its time is over or it is replaced."""

    def __init__(self, level: LogLevel) -> None:
        self._level = level
        self._group = Group()
        self.configured: LevelName = "info"
        self.wanted: LevelName | None = None
        """The operator's level, which overrides the file's."""

    @property
    def now(self) -> LevelName:
        return self.wanted or self.configured

    def set(self, configured: LevelName) -> None:
        """Set the level of the file. Does not block."""
        self.configured = configured
        self._level.set(self.now)

    def want(self, level: LevelName | None, for_s: float = 0.0) -> None:
        """Set or, with None, remove the operator's level. ``for_s`` is its duration, 0: unlimited. Does not block."""
        self._group.kill(block=False)
        self.wanted = level
        self._level.set(self.now)
        if level is not None and for_s:
            self._group.spawn(self._end_after, for_s).name = "log level"

    def _end_after(self, for_s: float) -> None:
        gevent.sleep(for_s)
        self.wanted = None
        self._level.set(self.now)
