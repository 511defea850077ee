"""Keys that are accepted, but whose effect comes with a later version: each gets a warning where it is set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pomagent.config.findings import Findings
from pomagent.config.tables import Entry, Tables

# Table and key: the value that asks for nothing beyond what there is, and what to say about every other one.
PENDING: dict[str, dict[str, tuple[object, str]]] = {
    "agent": {},
    "status": {},
    "gateways": {},
    "credentials": {},
    "routes": {
        "pool_decay_s": (0, "has no effect yet: an unused route keeps its warm tunnels"),
    },
}


def warn_of_pending(tables: Tables, findings: Findings) -> None:
    """Warns of each key that is set and has no effect yet."""
    for kind, entry in _entries(tables):
        for key, (idle, message) in PENDING[kind].items():
            if key in entry.given and entry.given[key] != idle:
                findings.warning(entry.place, key, message)


def _entries(tables: Tables) -> Iterator[tuple[str, Entry[Any]]]:
    yield "agent", tables.agent
    yield "status", tables.status
    yield "routes", tables.defaults
    yield from (("gateways", entry) for entry in tables.gateways.values())
    yield from (("credentials", entry) for entry in tables.credentials.values())
    yield from (("routes", entry) for entry in tables.routes)
