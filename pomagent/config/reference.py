"""The tables of every setting, from the model: for the README and for the manual page."""

from __future__ import annotations

import json
from collections.abc import Iterator
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

TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("[agent]", AgentTable),
    ("[status]", StatusTable),
    ("[drain]", DrainTable),
    ("[gateways.NAME]", GatewayTable),
    ("[credentials.NAME]", CredentialTable),
    ("[[routes]]", RouteTable),
)


def markdown() -> str:
    """Every key with its default, how a changed value is applied, and its meaning."""
    return "\n".join(_table(header, model) for header, model in TABLES)


def _table(header: str, model: type[BaseModel]) -> str:
    rows = "".join(_row(name, field) for name, field in _fields(model))
    return f"**`{header}`**\n\n| key | default | applied | meaning |\n| --- | --- | --- | --- |\n{rows}"


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """A route's own keys first, then those that may also stand under [defaults]."""
    inherited = RouteDefaults.model_fields if model is RouteTable else {}
    yield from ((field.alias or name, field) for name, field in model.model_fields.items() if name not in inherited)
    yield from inherited.items()


def _row(name: str, field: FieldInfo) -> str:
    extra: dict[str, Any] = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{name}` | {_default(field)} | {extra.get('x-apply', '')} | {meaning} |\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return "" if field.default is None else f"`{json.dumps(field.default)}`"
