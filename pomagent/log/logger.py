"""Logs each event as one line: JSON for machines, colour on a terminal.

``make_logger`` returns a structlog logger without structlog's global state. The caller owns the writer and the level,
so a reload changes the level of every logger, including those bound before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import structlog
from structlog.typing import Processor

from pomagent.log import events
from pomagent.log.formats import PRIORITIES, Fields, as_entry, as_json, as_text
from pomagent.log.journal import leads_to_journal
from pomagent.log.repeats import Repeats
from pomagent.log.writer import Line, LogWriter

__all__ = ["Format", "LevelName", "LogFormat", "LogLevel", "LogWriter", "Logger", "make_logger", "resolve_format"]

Format: TypeAlias = Literal["json", "console"]
LevelName: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR
_NUMBERS: Final[Mapping[LevelName, int]] = {
    "debug": DEBUG,
    "info": INFO,
    "warning": WARNING,
    "error": ERROR,
    "critical": logging.CRITICAL,
}


class LogLevel:
    """Minimum level that is logged, shared by all loggers of an agent and changed by a reload."""

    __slots__ = ("number",)

    def __init__(self, name: LevelName = "info") -> None:
        self.number = _NUMBERS[name]

    def set(self, name: LevelName) -> None:
        self.number = _NUMBERS[name]


class LogFormat:
    """Format of lines, shared by all loggers of an agent and changed by a reload."""

    __slots__ = ("name",)

    def __init__(self, name: Format) -> None:
        self.name = name


class _Sink:
    """The "wrapped logger" of structlog: every method queues a rendered line."""

    __slots__ = ("critical", "debug", "error", "info", "level", "warning")

    def __init__(self, writer: LogWriter, level: LogLevel) -> None:
        self.level = level
        self.debug = self.info = self.warning = self.error = self.critical = writer.write


class Logger(structlog.BoundLoggerBase):
    """A structlog logger with a level that can change. Thread-safe, never raises."""

    _logger: _Sink

    def debug(self, event: str, **fields: Any) -> None:
        if self._logger.level.number <= DEBUG:
            self._proxy_to_logger("debug", event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        if self._logger.level.number <= INFO:
            self._proxy_to_logger("info", event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        if self._logger.level.number <= WARNING:
            self._proxy_to_logger("warning", event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        if self._logger.level.number <= ERROR:
            self._proxy_to_logger("error", event, **fields)

    def critical(self, event: str, **fields: Any) -> None:
        self._proxy_to_logger("critical", event, **fields)

    def observed_by(self, observe: Processor) -> Logger:
        """Return a copy of this logger that calls ``observe`` for each event before it is rendered."""
        return Logger(self._logger, [observe, *self._processors], self._context)

    def is_enabled_for(self, name: LevelName) -> bool:
        """Return whether a level is logged, to avoid gathering costly fields."""
        return self._logger.level.number <= _NUMBERS[name]


class _Renderer:
    """Renders events as lines, and repeated ones as one line with a count."""

    def __init__(self, writer: LogWriter, form: LogFormat, level: LogLevel) -> None:
        self._form = form
        self._level = level
        self._repeats = Repeats()
        self._is_coloured = os.isatty(writer.fd) and not os.environ.get("NO_COLOR")  # https://no-color.org
        # Without fields, the journal reads the level from a prefix such as ``<3>``, sd-daemon(3).
        self._has_prefix = leads_to_journal(writer.fd, os.environ)
        self._has_fields = writer.journal is not None
        self.due_in_s = self._repeats.due_in_s

    def process(self, _: object, level: str, fields: Any) -> tuple[Line, dict[str, Any]]:
        """Render an event. As the last processor of structlog, it returns the arguments of ``LogWriter.write``."""
        if self._level.number > DEBUG and self._repeats.holds(level, fields):
            raise structlog.DropEvent
        return self.line(level, fields), {}

    def lines(self, *, at_the_end: bool) -> list[Line]:
        """Return the lines that count held ones."""
        return [self.line(level, fields) for level, fields in self._repeats.due(at_the_end=at_the_end)]

    def line(self, level: str, fields: Fields) -> Line:
        try:
            return self._line(level, fields)
        except Exception as error:  # noqa: BLE001 - a value that cannot be rendered must not end a session
            return self._line(level, {"event": fields["event"], "unrenderable": repr(error)})

    def loss(self, count: int) -> Line:
        return self.line("warning", {"event": events.LOG_DROPPED, "count": count})

    def _line(self, level: str, fields: Fields) -> Line:
        is_json = self._form.name == "json"
        text = as_json(level, fields) if is_json else as_text(level, fields, is_coloured=self._is_coloured)
        prefix = f"<{PRIORITIES[level]}>" if self._has_prefix else ""
        return Line(prefix + text, as_entry(level, fields) if self._has_fields else b"")


def make_logger(writer: LogWriter, *, format: Format | LogFormat, level: LogLevel) -> Logger:  # noqa: A002 - the setting
    """Return the logger from which all others are bound (``route``, ``session``, ``tunnel``)."""
    renderer = _Renderer(writer, format if isinstance(format, LogFormat) else LogFormat(format), level)
    writer.describe_loss, writer.later = renderer.loss, renderer
    return Logger(_Sink(writer, level), [renderer.process], {})


def resolve_format(setting: Literal["auto", "json", "console"], fd: int) -> Format:
    """Return the format for a setting, where ``auto`` is ``console`` on a terminal, else ``json``."""
    if setting == "auto":
        return "console" if os.isatty(fd) else "json"
    return setting
