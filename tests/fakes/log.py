"""Logs that a test can read."""

from __future__ import annotations

import json
from typing import Any

from pomagent.log.logger import Logger, LogLevel, make_logger
from tests.gateway import minted
from tests.support.agent import event_document


class Lines(list[str]):
    """A LogWriter that keeps the lines."""

    fd = -1
    journal: object = None
    describe_loss: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[bytes] = []
        """The journal fields of each line."""

    def write(self, text: str, fields: bytes = b"") -> None:
        self.append(text)
        self.fields.append(fields)


class FakeLog:
    """A logger at debug level that keeps every line and checks it against docs/events.md."""

    fd = -1
    journal = None

    def __init__(self) -> None:
        self.text = ""
        self.lines: list[dict[str, Any]] = []
        self.log: Logger = make_logger(self, format="json", level=LogLevel("debug"))  # type: ignore[arg-type]

    def write(self, line: str, fields: bytes = b"") -> None:
        minted.search(line, "the log of an agent in this process")
        self.text += line + "\n"
        self.lines.append(json.loads(line))
        event_document.note(self.lines[-1])

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]
