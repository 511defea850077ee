"""Locates keys of accepted settings, for problems that appear later (an address is in use)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pomagent.config.tables import Entry, Tables
from pomagent.settings import Locate


def locator(tables: Tables, main: Path) -> Locate:
    """Return a function from a dotted key, such as ``routes.orders-db.listen``, to its file and line.

    An unknown key has the main file and line 0.
    """
    places = {entry.place.label: entry.place for entry in _entries(tables)}

    def locate(key: str) -> tuple[Path | None, int]:
        table, _, last = key.rpartition(".")
        if table not in places:
            return main, 0
        problem = places[table].problem(last, "")
        return problem.path, problem.line

    return locate


def _entries(tables: Tables) -> Iterator[Entry[Any]]:
    yield from (tables.agent, tables.status, tables.drain, tables.defaults)
    yield from tables.gateways.values()
    yield from tables.credentials.values()
    yield from tables.routes
