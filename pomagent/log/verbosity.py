"""How much is logged: what the file says, or for a while what an operator wants to see."""

from __future__ import annotations

from typing import Final

import gevent
from gevent.pool import Group

from pomagent.log.logger import LevelName, LogLevel

LEVELS: Final[tuple[LevelName, ...]] = ("debug", "info", "warning", "error")
"""That may be asked for, as in the file."""


class Verbosity:
    """Moves one ``LogLevel``; a reload does not end what was asked for, time or another word does."""

    def __init__(self, level: LogLevel) -> None:
        self._level = level
        self._group = Group()
        self.configured: LevelName = "info"
        self.wanted: LevelName | None = None
        """Instead of what the file says."""

    @property
    def now(self) -> LevelName:
        return self.wanted or self.configured

    def set(self, configured: LevelName) -> None:
        """The file says this. Does not block."""
        self.configured = configured
        self._level.set(self.now)

    def want(self, level: LevelName | None, for_s: float = 0.0) -> None:
        """Log this much, for so long or, if that is 0, until told otherwise; None: as the file says. Does not block."""
        self._group.kill(block=False)
        self.wanted = level
        self._level.set(self.now)
        if level is not None and for_s:
            self._group.spawn(self._end_after, for_s).name = "log level"

    def _end_after(self, for_s: float) -> None:
        gevent.sleep(for_s)
        self.wanted = None
        self._level.set(self.now)
