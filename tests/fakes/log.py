"""A log that a test can read."""

from __future__ import annotations

import json
from typing import Any

from pomagent.log import Logger, LogLevel, make_logger
from tests import event_document
from tests.gateway import minted


class FakeLog:
    """Everything that was logged, at every level, as it would have been written."""

    fd = -1

    def __init__(self) -> None:
        self.text = ""
        self.lines: list[dict[str, Any]] = []
        self.log: Logger = make_logger(self, format="json", level=LogLevel("debug"))  # type: ignore[arg-type]

    def write(self, line: str) -> None:
        minted.search(line, "the log of an agent in this process")
        self.text += line + "\n"
        self.lines.append(json.loads(line))
        event_document.note(self.lines[-1])

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]
