"""Renders the model as tables of all settings, for the README and the manual page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pomagent.config.model import (
    AgentTable,
    CredentialTable,
    DrainTable,
    GatewayTable,
    RouteDefaults,
    RouteTable,
    StatusTable,
)

REQUIRED = "required"
TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("[agent]", AgentTable),
    ("[status]", StatusTable),
    ("[drain]", DrainTable),
    ("[gateways.NAME]", GatewayTable),
    ("[credentials.NAME]", CredentialTable),
    ("[[routes]]", RouteTable),
)


@dataclass(frozen=True)
class Key:
    """One key of a table of agent.toml."""

    name: str
    default: str
    """The default as TOML, "required", or empty if it depends on other keys."""
    applied: str
    meaning: str


def tables() -> Iterator[tuple[str, list[Key]]]:
    """Yield the header of every table with its keys, in the order of the model."""
    for header, model in TABLES:
        yield header, [_key(name, field) for name, field in _fields(model)]


def markdown() -> str:
    """Return Markdown tables of every key: default, how a changed value is applied, meaning."""
    return "\n".join(_table(header, keys) for header, keys in tables())


def keys_of(model: type[BaseModel]) -> frozenset[str]:
    """Return the names of a table's keys."""
    return frozenset(name for name, _ in _fields(model))


def _table(header: str, keys: list[Key]) -> str:
    rows = "".join(map(_row, keys))
    return f"**`{header}`**\n\n| key | default | applied | meaning |\n| --- | --- | --- | --- |\n{rows}"


def _row(key: Key) -> str:
    default = f"`{key.default}`" if key.default not in ("", REQUIRED) else key.default
    meaning = key.meaning.replace("|", "\\|")
    return f"| `{key.name}` | {default} | {key.applied} | {meaning} |\n"


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the fields of a model. A route's own keys come before those that [defaults] also has."""
    inherited = RouteDefaults.model_fields if model is RouteTable else {}
    yield from ((field.alias or name, field) for name, field in model.model_fields.items() if name not in inherited)
    yield from inherited.items()


def _key(name: str, field: FieldInfo) -> Key:
    extra: dict[str, Any] = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return Key(name, _default(field), extra.get("x-apply", ""), field.description or "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return REQUIRED
    return "" if field.default is None else json.dumps(field.default)
