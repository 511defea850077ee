"""The last notable lines of the log, for whoever looks at the agent rather than into its log."""

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
"""Events of one name: what repeats must not push out what happened once."""
NOTABLE_LEVELS: Final = frozenset({"warning", "error", "critical"})
NOTABLE_EVENTS: Final = frozenset({
    events.AGENT_STARTED, events.AGENT_DRAINING, events.CONFIG_APPLIED, events.ROUTE_CLASSIFIED, events.ROUTE_PROMOTED,
    events.BREAKER_CLOSED, events.CREDENTIAL_REFRESHED, events.CONTROL_CHANGED, events.PERIOD_DETECTED,
})  # fmt: skip
"""Of life as it should be."""


@dataclass(frozen=True, slots=True)
class Note:
    """One line of the log, or several in a row that say the same of the same."""

    at: float
    """Of the last one, in seconds since the epoch."""
    level: str
    fields: Mapping[str, Any]
    """As the log has them: the event's name among them."""
    count: int = 1


class RecentEvents:
    """Filled by loggers of any thread."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[Note]] = {}

    def followed(self, log: Logger) -> Logger:
        """The same logger, whose lines are noted here as well."""
        return log.observed_by(self._note)

    def latest(self, count: int) -> list[Note]:
        """The newest first, repetitions together. Does not block."""
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
