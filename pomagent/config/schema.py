"""The JSON Schema of ``agent.toml``, for editors."""

from __future__ import annotations

from typing import Any

from pomagent.config.model import AgentFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NULL = {"type": "null"}


def json_schema() -> dict[str, Any]:
    """Return the schema of every key: type, bounds, default, meaning, and under ``x-apply`` how a change is applied."""
    schema = _without_null(AgentFile.model_json_schema(by_alias=True))
    return {"$schema": DIALECT, **schema, "title": "agent.toml"}


def _without_null(node: Any) -> Any:
    """Remove null types, which TOML does not have, so that an editor does not offer them for optional keys."""
    if isinstance(node, list):
        return [_without_null(item) for item in node if item != NULL]
    if not isinstance(node, dict):
        return node
    clean = {key: _without_null(value) for key, value in node.items() if value is not None}
    if isinstance(clean.get("anyOf"), list) and len(clean["anyOf"]) == 1:
        clean |= clean.pop("anyOf")[0]
    return clean
