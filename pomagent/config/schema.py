"""The JSON Schema of ``agent.toml``, for editors."""

from __future__ import annotations

from typing import Any

from pomagent.config.model import AgentFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Describes every key: type, bounds, default, meaning, and under ``x-apply`` how a change takes effect."""
    schema = _without_null_defaults(AgentFile.model_json_schema(by_alias=True))
    return {"$schema": DIALECT, **schema, "title": "agent.toml"}


def _without_null_defaults(node: Any) -> Any:
    """TOML has no null, so an editor must not offer it."""
    if isinstance(node, dict):
        return {k: _without_null_defaults(v) for k, v in node.items() if k != "default" or v is not None}
    return [_without_null_defaults(item) for item in node] if isinstance(node, list) else node
