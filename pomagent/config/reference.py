"""The tables of every setting, from the model: for the README and for the manual page."""

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
    """As TOML; "required", or empty where it depends."""
    applied: str
    meaning: str


def tables() -> Iterator[tuple[str, list[Key]]]:
    """Every table by its header, with every key in the order of the model."""
    for header, model in TABLES:
        yield header, [_key(name, field) for name, field in _fields(model)]


def markdown() -> str:
    """Every key with its default, how a changed value is applied, and its meaning."""
    return "\n".join(_table(header, keys) for header, keys in tables())


def keys_of(model: type[BaseModel]) -> frozenset[str]:
    """Of one table."""
    return frozenset(name for name, _ in _fields(model))


def _table(header: str, keys: list[Key]) -> str:
    rows = "".join(map(_row, keys))
    return f"**`{header}`**\n\n| key | default | applied | meaning |\n| --- | --- | --- | --- |\n{rows}"


def _row(key: Key) -> str:
    default = f"`{key.default}`" if key.default not in ("", REQUIRED) else key.default
    meaning = key.meaning.replace("|", "\\|")
    return f"| `{key.name}` | {default} | {key.applied} | {meaning} |\n"


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """A route's own keys first, then those that may also stand under [defaults]."""
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
