"""The log of an agent in a process of its own, as events."""

import json
import os
import threading
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class EventLog:
    """A file of lines, those in JSON as events; each is read once, since waits look a hundred times a second."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reading = threading.Lock()
        self._inode = self._read_bytes = 0
        self._events: list[Event] = []

    @property
    def text(self) -> str:
        return self.path.read_text(errors="replace")

    @property
    def events(self) -> list[Event]:
        """All so far, without one that is still being written."""
        with self._reading, self.path.open("rb") as log:
            if (inode := os.fstat(log.fileno()).st_ino) != self._inode:  # of another agent, in its place
                self._inode, self._read_bytes, self._events = inode, 0, []
            log.seek(self._read_bytes)
            news = log.read()
            whole = news[: news.rfind(b"\n") + 1]
            self._events += [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
            self._read_bytes += len(whole)
            return self._events
