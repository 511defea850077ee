"""docs/events.md, so that tests can hold the code to it, and every line that is logged while they run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parents[3] / "docs/events.md"
ALWAYS = frozenset({"event", "timestamp", "level"})
IN_ANY = frozenset({"unrenderable", "repeated"})
_noted: list[str] = []


@dataclass(frozen=True, slots=True)
class Documented:
    """What the document says of one event."""

    levels: frozenset[str]
    fields: frozenset[str]
    sometimes: frozenset[str]
    """Those of ``fields`` that not every line has."""


@cache
def events() -> Mapping[str, Documented]:
    """Of every event, by its name."""
    rows = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| ([a-z, ]+) \| .+ \| (`.*`) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows}), "an event has two rows"
    return {name: _documented(levels, re.findall(r"`(\w+\??)`", fields)) for name, levels, fields in rows}


@cache
def explained() -> frozenset[str]:
    """The fields that have an explanation."""
    _, _, table = DOCUMENT.read_text().partition("\n## Fields\n")
    firsts = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    names = [name for first in firsts for name in re.findall(r"`(\w+)`", first)]
    assert len(names) == len(set(names)), "a field is explained twice"
    return frozenset(names)


def objections(line: Mapping[str, Any]) -> list[str]:
    """What a line that was logged has against the document, apart from fields that it lacks."""
    documented = events().get(line["event"])
    if documented is None:
        return [f"docs/events.md has no {line['event']}"]
    unknown = line.keys() - documented.fields - ALWAYS - IN_ANY
    wrong = [f"docs/events.md has no field {name} of {line['event']}" for name in sorted(unknown)]
    if line["level"] not in documented.levels:
        wrong.append(f"docs/events.md has no {line['event']} at level {line['level']}")
    return wrong


def shortcomings(line: Mapping[str, Any]) -> list[str]:
    """The same, with the fields that are missing: for the lines of a whole agent."""
    documented = events().get(line["event"])
    missing = documented.fields - documented.sometimes - line.keys() if documented else ()
    return objections(line) + [f"docs/events.md has {name} in every {line['event']}" for name in sorted(missing)]


def note(line: Mapping[str, Any]) -> None:
    """Let the test that runs fail at its end if there is an objection. Any thread may call."""
    _noted.extend(objections(line))


def take_noted() -> list[str]:
    """The objections since this was asked last."""
    found = _noted[:]
    del _noted[: len(found)]
    return found


def _documented(levels: str, fields: list[str]) -> Documented:
    names = [field.rstrip("?") for field in fields]
    assert len(names) == len(set(names)), f"a field stands twice in {fields}"
    return Documented(
        frozenset(levels.split(", ")), frozenset(names), frozenset(name[:-1] for name in fields if name.endswith("?"))
    )
