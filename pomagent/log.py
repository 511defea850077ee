"""One event, one line: as JSON for machines, in colour for people on a terminal.

``make_logger`` gives a structlog logger without structlog's global state: the writer and the level are objects that
``agent`` owns, so a reload changes the level of every logger that was bound before it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

import structlog

from pomagent import events
from pomagent.journal import leads_to_journal
from pomagent.log_lines import PRIORITIES, Fields, as_entry, as_json, as_text
from pomagent.log_writer import Line, LogWriter
from pomagent.repeats import Repeats

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
    """The least level that is logged; shared by all loggers of an agent and changed by a reload."""

    __slots__ = ("number",)

    def __init__(self, name: LevelName = "info") -> None:
        self.number = _NUMBERS[name]

    def set(self, name: LevelName) -> None:
        self.number = _NUMBERS[name]


class LogFormat:
    """How lines are rendered; shared by all loggers of an agent and changed by a reload."""

    __slots__ = ("name",)

    def __init__(self, name: Format) -> None:
        self.name = name


class _Sink:
    """What structlog calls the wrapped logger: takes rendered lines, whatever the method."""

    __slots__ = ("critical", "debug", "error", "info", "level", "warning")

    def __init__(self, writer: LogWriter, level: LogLevel) -> None:
        self.level = level
        self.debug = self.info = self.warning = self.error = self.critical = writer.write


class Logger(structlog.BoundLoggerBase):
    """A structlog logger with a live level; any thread may use it, and it never raises."""

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

    def is_enabled_for(self, name: LevelName) -> bool:
        """Says whether such a line would be written, for fields that are costly to gather."""
        return self._logger.level.number <= _NUMBERS[name]


class _Repeated:
    """What ``repeats`` has held, as lines."""

    def __init__(self, repeats: Repeats, render: Callable[[str, Fields], Line]) -> None:
        self.due_in_s = repeats.due_in_s
        self._repeats = repeats
        self._render = render

    def lines(self, *, at_the_end: bool) -> list[Line]:
        return [self._render(level, fields) for level, fields in self._repeats.due(at_the_end=at_the_end)]


def make_logger(writer: LogWriter, *, format: Format | LogFormat, level: LogLevel) -> Logger:  # noqa: A002 - the setting
    """Returns the agent's first logger; ``route``, ``session`` and ``tunnel`` are bound to it explicitly."""
    is_coloured = os.isatty(writer.fd) and not os.environ.get("NO_COLOR")  # https://no-color.org
    is_journal = leads_to_journal(writer.fd, os.environ)
    form = format if isinstance(format, LogFormat) else LogFormat(format)

    def render_known(level_name: str, fields: Fields) -> Line:
        text = (
            as_json(level_name, fields) if form.name == "json" else as_text(level_name, fields, is_coloured=is_coloured)
        )
        # The journal takes the level out of ``<3>``, sd-daemon(3), unless it is given the fields.
        line = f"<{PRIORITIES[level_name]}>{text}" if is_journal else text
        return Line(line, as_entry(level_name, fields) if writer.journal is not None else b"")

    def render(level_name: str, fields: Fields) -> Line:
        try:
            return render_known(level_name, fields)
        except Exception as error:  # noqa: BLE001 - a value that cannot be rendered must not end a session
            return render_known(level_name, {"event": fields["event"], "unrenderable": repr(error)})

    repeats = Repeats()

    def process(_: object, level_name: str, fields: Any) -> tuple[Line, dict[str, Any]]:
        if level.number > DEBUG and repeats.holds(level_name, fields):
            raise structlog.DropEvent
        return render(level_name, fields), {}

    writer.describe_loss = lambda count: render("warning", {"event": events.LOG_DROPPED, "count": count})
    writer.later = _Repeated(repeats, render)
    return Logger(_Sink(writer, level), [process], {})


def resolve_format(setting: Literal["auto", "json", "console"], fd: int) -> Format:
    """Decides ``auto``: for people on a terminal, for machines everywhere else."""
    if setting == "auto":
        return "console" if os.isatty(fd) else "json"
    return setting
