"""Keeps recent notable log events for the status page and ``pomagent diag``."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.log.repeats import KIND

KEPT_OF_EACH = 20
"""Maximum events kept of each name, so that frequent events do not displace rare ones."""
NOTABLE_LEVELS: Final = frozenset({"warning", "error", "critical"})
NOTABLE_EVENTS: Final = frozenset({
    events.AGENT_STARTED, events.AGENT_DRAINING, events.CONFIG_APPLIED, events.ROUTE_CLASSIFIED, events.ROUTE_PROMOTED,
    events.BREAKER_CLOSED, events.CREDENTIAL_REFRESHED, events.CONTROL_CHANGED, events.PERIOD_DETECTED,
})  # fmt: skip
"""Notable events of the normal life cycle, at level info."""


@dataclass(frozen=True, slots=True)
class Note:
    """One log event, or several equal ones with their count."""

    at: float
    """Time of the last one, in seconds since the epoch."""
    level: str
    fields: Mapping[str, Any]
    """Fields of the last one, including ``event``."""
    count: int = 1


class RecentEvents:
    """The latest notable events of a logger. Thread-safe."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[Note]] = {}

    def followed(self, log: Logger) -> Logger:
        """Return a copy of a logger that also keeps its notable events here."""
        return log.observed_by(self._note)

    def latest(self, count: int) -> list[Note]:
        """Return the latest events, newest first, equal ones merged."""
        kept = [note for notes in list(self._kept.values()) for note in list(notes)]
        together: dict[tuple[str, ...], Note] = {}
        for note in sorted(kept, key=lambda note: note.at):
            key = tuple(str(note.fields.get(name)) for name in KIND)
            seen = together.pop(key, None)
            together[key] = Note(note.at, note.level, note.fields, seen.count + 1 if seen else 1)
        return list(together.values())[: -count - 1 : -1]

    def _note(self, _: object, level: str, fields: Any) -> Any:
        name = fields["event"]
        if level in NOTABLE_LEVELS or name in NOTABLE_EVENTS:
            self._kept.setdefault(name, deque(maxlen=KEPT_OF_EACH)).append(Note(time.time(), level, dict(fields)))
        return fields
