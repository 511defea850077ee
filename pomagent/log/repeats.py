"""Limits repeated errors: the first lines of a kind are written, further ones counted, and the count is logged."""

from __future__ import annotations

import threading  # noqa: TID251 - only its lock: loggers of all threads use it, and none blocks while holding it
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

WRITTEN: Final = 10
"""Lines of one kind that are written before further ones are counted, enough to see the clients and the rate."""
EVERY_S: Final = 60.0
"""Seconds between lines with the count. A kind without a line for this long is forgotten."""
MAX_KINDS: Final = 1000
"""Maximum kinds tracked at once. Lines of further kinds are all written."""
LEVELS: Final = frozenset({"warning", "error", "critical"})
KIND: Final = (
    "event", "route", "gateway", "credential", "listen", "library", "error", "why", "reason", "user", "command",
    "warning", "message", "exception",
)  # fmt: skip
"""Fields that are equal in lines of the same kind."""

Fields = Mapping[str, Any]


@dataclass(slots=True)
class _Kind:
    ends_at: float
    written: int = 0
    held: int = 0
    unlogged: int = 0
    """Sum of ``unlogged`` over the held lines: sessions without a line of their own."""
    last: tuple[str, Fields] = field(default=("", {}))


class Repeats:
    """Kinds of lines within the last minute. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[tuple[str, ...], _Kind] = {}
        self._lock = threading.RLock()  # reentrant: a destructor that logs may run while it is held

    def holds(self, level: str, fields: Fields) -> bool:
        """Count a line and return True if it must not be written."""
        if level not in LEVELS:
            return False
        key = tuple(_text(fields.get(name)) for name in KIND)
        with self._lock:
            kind = self._kinds.get(key)
            if kind is None:
                if len(self._kinds) >= MAX_KINDS:
                    return False
                kind = self._kinds[key] = _Kind(self._clock() + EVERY_S)
            if kind.written < WRITTEN:
                kind.written += 1
                return False
            kind.held += 1
            kind.unlogged += fields.get("unlogged", 0)
            kind.last = level, dict(fields)
            return True

    def due(self, *, at_the_end: bool = False) -> list[tuple[str, Fields]]:
        """Return level and fields of one line for each kind with held lines, with their count."""
        now = self._clock()
        lines: list[tuple[str, Fields]] = []
        with self._lock:
            for key, kind in list(self._kinds.items()):
                if now < kind.ends_at and not at_the_end:
                    continue
                if not kind.held:
                    del self._kinds[key]
                    continue
                level, fields = kind.last
                unlogged = {"unlogged": kind.unlogged} if kind.unlogged else {}
                lines.append((level, {**fields, **unlogged, "repeated": kind.held}))
                kind.held, kind.unlogged, kind.ends_at = 0, 0, now + EVERY_S
        return lines

    def due_in_s(self) -> float | None:
        """Return the seconds until ``due`` must be called, or None if no kind is tracked."""
        with self._lock:
            first = min((kind.ends_at for kind in self._kinds.values()), default=None)
        return None if first is None else max(0.0, first - self._clock())


def _text(value: object) -> str:
    """Return text as it is, and for any other value its type, because its ``str()`` may fail."""
    return value if isinstance(value, str) else type(value).__name__
