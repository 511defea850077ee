"""One event, one line: as JSON for machines, in colour for people on a terminal.

``make_logger`` gives a structlog logger without structlog's global state: the writer and the level are objects that
``agent`` owns, so a reload changes the level of every logger that was bound before it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

import structlog

from pomagent import events
from pomagent.log_writer import LogWriter

__all__ = ["Format", "LevelName", "LogFormat", "LogLevel", "LogWriter", "Logger", "make_logger", "resolve_format"]

Format: TypeAlias = Literal["json", "console"]
LevelName: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]
Fields: TypeAlias = Mapping[str, Any]

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR
_NUMBERS: Final[Mapping[LevelName, int]] = {
    "debug": DEBUG,
    "info": INFO,
    "warning": WARNING,
    "error": ERROR,
    "critical": logging.CRITICAL,
}
_COLOURS: Final = {
    "debug": "\033[2m",
    "info": "\033[32m",
    "warning": "\033[33m",
    "error": "\033[31m",
    "critical": "\033[1;31m",
}
_PRIORITIES: Final[Mapping[str, int]] = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""As syslog(3) counts them."""
_BOLD, _DIM, _PLAIN = "\033[1m", "\033[2m", "\033[0m"
_EVENT_WIDTH: Final = 22  # of nearly every name, so that the fields begin in one column


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


def make_logger(writer: LogWriter, *, format: Format | LogFormat, level: LogLevel) -> Logger:  # noqa: A002 - the setting
    """Returns the agent's first logger; ``route``, ``session`` and ``tunnel`` are bound to it explicitly."""
    is_coloured = os.isatty(writer.fd) and not os.environ.get("NO_COLOR")  # https://no-color.org
    is_journal = _leads_to_journal(writer.fd)
    form = format if isinstance(format, LogFormat) else LogFormat(format)

    def render_known(level_name: str, fields: Fields) -> str:
        line = _as_json(level_name, fields) if form.name == "json" else _as_text(level_name, fields, is_coloured)
        return f"<{_PRIORITIES[level_name]}>{line}" if is_journal else line

    def render(_: object, level_name: str, fields: Any) -> str:
        try:
            return render_known(level_name, fields)
        except Exception as error:  # noqa: BLE001 - a value that cannot be rendered must not end a session
            return render_known(level_name, {"event": fields["event"], "unrenderable": repr(error)})

    writer.describe_loss = lambda count: render_known("warning", {"event": events.LOG_DROPPED, "count": count})
    return Logger(_Sink(writer, level), [render], {})


def resolve_format(setting: Literal["auto", "json", "console"], fd: int) -> Format:
    """Decides ``auto``: for people on a terminal, for machines everywhere else."""
    if setting == "auto":
        return "console" if os.isatty(fd) else "json"
    return setting


def _leads_to_journal(fd: int) -> bool:
    """Whether systemd's journal reads there: it takes the level out of ``<3>``, sd-daemon(3), and ``-p`` selects."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: object) -> object:
    """Turns what JSON does not know into what it knows; ``str()`` of a ``SecretStr`` is asterisks."""
    match value:
        case Enum():
            return value.value
        case BaseException():
            return str(value) or type(value).__name__
        case bytes():
            return value.decode(errors="backslashreplace")
        case set() | frozenset():
            return sorted(map(str, value))
        case _:
            return str(value)


def _as_json(level: str, fields: Fields) -> str:
    first = {"event": fields["event"], "timestamp": _now(), "level": level}
    # Escaped to ASCII: control characters that JSON allows (U+009B opens a terminal sequence) do no harm in `cat`.
    return json.dumps(first | dict(fields) | first, default=_plain)


def _as_text(level: str, fields: Fields, is_coloured: bool) -> str:
    bold, dim, colour, plain = (_BOLD, _DIM, _COLOURS[level], _PLAIN) if is_coloured else ("", "", "", "")
    pairs = [f"{dim}{name}={plain}{_text(value)}" for name, value in fields.items() if name != "event"]
    event = _text(fields["event"])
    return " ".join(
        [f"{dim}{_now()}{plain} {colour}{level:<8}{plain} {bold}{event:<{_EVENT_WIDTH}}{plain}", *pairs]
    ).rstrip()


def _text(value: object) -> str:
    """A value for the console: bare where that is unmistakable, else quoted; always on one line."""
    if isinstance(value, bool | int | float | list | tuple | dict | None) and not isinstance(value, Enum):
        return json.dumps(value, default=_plain)
    text = str(value if isinstance(value, str) and not isinstance(value, Enum) else _plain(value))
    is_bare = text.isprintable() and text and not any(mark in text for mark in ' "=')
    return text if is_bare else json.dumps(text, ensure_ascii=not text.isprintable())
