"""Reads docs/events.md and compares it with the lines that tests log."""

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
    """One event in the document."""

    levels: frozenset[str]
    fields: frozenset[str]
    sometimes: frozenset[str]
    """The fields that may be missing from a line."""


@cache
def events() -> Mapping[str, Documented]:
    """Return every documented event by its name."""
    rows = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| ([a-z, ]+) \| .+ \| (`.*`) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows}), "an event has two rows"
    return {name: _documented(levels, re.findall(r"`(\w+\??)`", fields)) for name, levels, fields in rows}


@cache
def explained() -> frozenset[str]:
    """Return the fields that the document explains."""
    _, _, table = DOCUMENT.read_text().partition("\n## Fields\n")
    firsts = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    names = [name for first in firsts for name in re.findall(r"`(\w+)`", first)]
    assert len(names) == len(set(names)), "a field is explained twice"
    return frozenset(names)


def objections(line: Mapping[str, Any]) -> list[str]:
    """Return what a logged line has that the document lacks."""
    documented = events().get(line["event"])
    if documented is None:
        return [f"docs/events.md has no {line['event']}"]
    unknown = line.keys() - documented.fields - ALWAYS - IN_ANY
    wrong = [f"docs/events.md has no field {name} of {line['event']}" for name in sorted(unknown)]
    if line["level"] not in documented.levels:
        wrong.append(f"docs/events.md has no {line['event']} at level {line['level']}")
    return wrong


def shortcomings(line: Mapping[str, Any]) -> list[str]:
    """Return every difference between a line of a whole agent and the document, missing fields included."""
    documented = events().get(line["event"])
    missing = documented.fields - documented.sometimes - line.keys() if documented else ()
    return objections(line) + [f"docs/events.md has {name} in every {line['event']}" for name in sorted(missing)]


def note(line: Mapping[str, Any]) -> None:
    """Record the objections to a line, for which the running test fails at its end. Any thread may call."""
    _noted.extend(objections(line))


def take_noted() -> list[str]:
    """Return the recorded objections and forget them."""
    found = _noted[:]
    del _noted[: len(found)]
    return found


def _documented(levels: str, fields: list[str]) -> Documented:
    names = [field.rstrip("?") for field in fields]
    assert len(names) == len(set(names)), f"a field stands twice in {fields}"
    return Documented(
        frozenset(levels.split(", ")), frozenset(names), frozenset(name[:-1] for name in fields if name.endswith("?"))
    )
