"""Formats of one event: JSON for machines, text for people, fields for systemd's journal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, Final

from pomagent.log import journal

Fields = Mapping[str, Any]

PRIORITIES: Final[Mapping[str, int]] = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Priorities of syslog(3)."""
_FACILITY: Final = "3"
"""Facility "daemon", which systemd sets for the standard error of a service."""
_COLOURS: Final = {
    "debug": "\033[2m",
    "info": "\033[32m",
    "warning": "\033[33m",
    "error": "\033[31m",
    "critical": "\033[1;31m",
}
_BARE: Final = (str, int, float)
_KNOWN_TO_JSON: Final = (bool, int, float, list, tuple, dict, NoneType)
_BOLD, _DIM, _PLAIN = "\033[1m", "\033[2m", "\033[0m"
_EVENT_WIDTH: Final = 22
"""Column width of the event's name, enough for nearly all, so that the fields are aligned."""


def as_json(level: str, fields: Fields) -> str:
    """Return an event as one line of JSON."""
    first = {"event": fields["event"], "timestamp": _now(), "level": level}
    # The encoder escapes to ASCII, because JSON allows control characters (U+009B opens a terminal sequence).
    return _encode(first | dict(fields) | first)


def as_text(level: str, fields: Fields, *, is_coloured: bool) -> str:
    """Return an event as one line for a terminal."""
    bold, dim, colour, plain = (_BOLD, _DIM, _COLOURS[level], _PLAIN) if is_coloured else ("", "", "", "")
    pairs = [f"{dim}{name}={plain}{_quoted(value)}" for name, value in fields.items() if name != "event"]
    event = _quoted(fields["event"])
    return " ".join(
        [f"{dim}{_now()}{plain} {colour}{level:<8}{plain} {bold}{event:<{_EVENT_WIDTH}}{plain}", *pairs]
    ).rstrip()


def as_entry(level: str, fields: Fields) -> bytes:
    """Return the fields of a journal entry except MESSAGE, such as ``POMAGENT_ROUTE=redis``, without empty ones."""
    entry = {"PRIORITY": str(PRIORITIES[level]), "SYSLOG_FACILITY": _FACILITY, "SYSLOG_IDENTIFIER": "pomagent"}
    for name, value in fields.items():
        if value is not None and value != "":
            entry[_name(name)] = str(value) if type(value) in _BARE else _bare(value)
    return journal.encode(entry)


@cache
def _name(field: str) -> str:
    return f"POMAGENT_{field.upper()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: object) -> object:
    """Convert a value that JSON cannot represent. ``str()`` of a ``SecretStr`` is asterisks."""
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


_encode: Final = json.JSONEncoder(default=_plain).encode


def _is_known_to_json(value: object) -> bool:
    return isinstance(value, _KNOWN_TO_JSON) and not isinstance(value, Enum)


def _bare(value: object) -> str:
    """Return text and numbers unquoted, other values as JSON."""
    known = value if isinstance(value, str) or _is_known_to_json(value) else _plain(value)
    return known if type(known) is str else _encode(known)


def _quoted(value: object) -> str:
    """Return a value for the console, unquoted if that is unambiguous, and always on one line."""
    if _is_known_to_json(value):
        return _encode(value)
    text = str(value if isinstance(value, str) and not isinstance(value, Enum) else _plain(value))
    is_bare = text.isprintable() and text and not any(mark in text for mark in ' "=')
    return text if is_bare else json.dumps(text, ensure_ascii=not text.isprintable())
