"""Reads the log file of an agent as events."""

import json
import os
import threading
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class EventLog:
    """A log file with JSON lines as events. Each line is read once, because waits look a hundred times a second."""

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
        """All complete events so far."""
        with self._reading, self.path.open("rb") as log:
            if (inode := os.fstat(log.fileno()).st_ino) != self._inode:  # another agent's log took its place
                self._inode, self._read_bytes, self._events = inode, 0, []
            log.seek(self._read_bytes)
            news = log.read()
            whole = news[: news.rfind(b"\n") + 1]
            self._events += [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
            self._read_bytes += len(whole)
            return self._events
