"""Errors that repeat: the first lines of a kind are written, the others counted, and the count is told. Any thread."""

from __future__ import annotations

import threading  # noqa: TID251 - only its lock: loggers of any thread come here, and none waits while it has it
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

WRITTEN: Final = 10
"""Lines of one kind before the others are counted: enough to see who and how fast."""
EVERY_S: Final = 60.0
"""How often the count is told; after so long without another line the kind is forgotten."""
MAX_KINDS: Final = 1000
"""What comes beyond is written: nobody has seen it yet."""
LEVELS: Final = frozenset({"warning", "error", "critical"})
KIND: Final = (
    "event", "route", "gateway", "credential", "listen", "library", "error", "why", "reason", "user", "command",
    "warning", "message", "exception",
)  # fmt: skip
"""Fields in which lines that say the same agree."""

Fields = Mapping[str, Any]


@dataclass(slots=True)
class _Kind:
    ends_at: float
    written: int = 0
    held: int = 0
    unlogged: int = 0
    """Sessions without a line, as lines that were held would have told."""
    last: tuple[str, Fields] = field(default=("", {}))


class Repeats:
    """The kinds of the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[tuple[str, ...], _Kind] = {}
        self._lock = threading.RLock()  # reentrant: a destructor that logs may run in the middle of this

    def holds(self, level: str, fields: Fields) -> bool:
        """Whether the line is one too many; then it is counted instead of written."""
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
        """Level and fields of the lines that stand for those that were held, each with its count."""
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
                untold = {"unlogged": kind.unlogged} if kind.unlogged else {}
                lines.append((level, {**fields, **untold, "repeated": kind.held}))
                kind.held, kind.unlogged, kind.ends_at = 0, 0, now + EVERY_S
        return lines

    def due_in_s(self) -> float | None:
        """When ``due`` is to be asked next; None if there is nothing that repeats."""
        with self._lock:
            first = min((kind.ends_at for kind in self._kinds.values()), default=None)
        return None if first is None else max(0.0, first - self._clock())


def _text(value: object) -> str:
    """Of a value that need not be text: never its own words for itself, which may fail."""
    return value if isinstance(value, str) else type(value).__name__
