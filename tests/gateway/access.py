"""The edge's access log."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Access:
    """One request in the edge's access log, written when it is over: for a tunnel, when it has closed."""

    method: str
    host: str
    protocol: str
    status: int
    flags: str | None
    details: str | None
    request_id: str | None
    received: int  # bytes from the client
    sent: int  # bytes to the client
    duration_ms: int


def entries(path: Path, expected: Mapping[str, object]) -> list[Access]:
    """The entries, oldest first, that have the expected values."""
    found = (Access(**json.loads(line)) for line in _complete_lines(path))
    return [entry for entry in found if _matches(entry, expected)]


def _complete_lines(path: Path) -> list[str]:
    """Omits the last entry while it is still being written."""
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def _matches(entry: Access, expected: Mapping[str, object]) -> bool:
    return all(getattr(entry, name) == value for name, value in expected.items())
