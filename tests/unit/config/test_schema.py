"""The JSON Schema contains everything that the models declare."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pomagent.config.model import AgentFile
from pomagent.config.schema import json_schema

APPLY = {"live", "new-sessions", "rebind", "restart"}


def _keys(table: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json_schema()["$defs"][table]["properties"]
    return found


TABLES = sorted(json_schema()["$defs"])


def test_schema_is_json_with_a_dialect_and_every_table() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "agent.toml"
    assert set(AgentFile.model_fields) == set(schema["properties"])
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("table", TABLES)
def test_every_key_has_a_description_and_a_way_to_apply_changes(table: str) -> None:
    for name, key in _keys(table).items():
        assert key["description"], name
        assert key["x-apply"] in APPLY, name


@pytest.mark.parametrize("table", TABLES)
def test_every_number_has_bounds(table: str) -> None:
    for name, key in _keys(table).items():
        if key.get("type") in {"number", "integer"}:
            assert {"minimum", "exclusiveMinimum"} & key.keys(), name
            assert "maximum" in key, name


@pytest.mark.parametrize("table", TABLES)
def test_unknown_keys_are_marked_as_errors(table: str) -> None:
    assert json_schema()["$defs"][table]["additionalProperties"] is False


def test_defaults_are_shown_and_a_route_is_spelled_as_in_the_file() -> None:
    routes = _keys("RouteTable")
    assert (
        routes["pool_max"]["default"],
        routes["warm"]["default"],
        routes["wait_timeout_s"]["default"],
    ) == (4, "auto", 20)
    assert {"from", "listen"} == set(json_schema()["$defs"]["RouteTable"]["required"])


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _nodes(inner)


def test_no_key_offers_null_which_toml_does_not_have() -> None:
    for node in _nodes(json_schema()):
        assert node is not None
        assert node != {"type": "null"}
