"""Where the keys of accepted settings stand, for what turns out wrong with them later (an address that is taken)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pomagent.config.tables import Entry, Tables
from pomagent.settings import Locate


def locator(tables: Tables, main: Path) -> Locate:
    """Maps a dotted key such as ``routes.orders-db.listen`` to its file and line; the file alone if it is unknown."""
    session_limit = {entry.place.label: entry.place for entry in _entries(tables)}

    def locate(key: str) -> tuple[Path | None, int]:
        table, _, last = key.rpartition(".")
        if table not in session_limit:
            return main, 0
        problem = session_limit[table].problem(last, "")
        return problem.path, problem.line

    return locate


def _entries(tables: Tables) -> Iterator[Entry[Any]]:
    yield from (tables.agent, tables.status, tables.drain, tables.defaults)
    yield from tables.gateways.values()
    yield from tables.credentials.values()
    yield from tables.routes
