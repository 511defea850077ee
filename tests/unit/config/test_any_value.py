"""Any content of the file is accepted or refused with a line, never with a traceback."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pomagent.config.load import load
from pomagent.config.schema import json_schema
from pomagent.errors import ConfigError


def _keys() -> Iterator[str]:
    for table in json_schema()["$defs"].values():
        yield from table["properties"]


texts = st.sampled_from(["", "x", "\0", "a\0b", "/", "..", "unix:", "[", "[::", "https://", "env", "é", "127.0.0.1:1"])
scalars = texts | st.text(max_size=8) | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=2) | st.dictionaries(texts, v, max_size=2), max_leaves=3)
tables = st.dictionaries(st.sampled_from(sorted(set(_keys()))) | st.text(max_size=3), values, max_size=4)
names = st.sampled_from(["default", "corp", "A b", ""])
documents = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(["agent", "status", "drain", "defaults"], tables | values),
        **dict.fromkeys(["gateways", "credentials"], st.dictionaries(names, tables | values, max_size=2) | values),
        "routes": st.lists(tables | values, max_size=3) | values,
        "other": values,
    },
)


def _toml(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case datetime.date():
            return value.isoformat()
    return json.dumps(value).replace("\x7f", "\\u007f") if isinstance(value, str) else json.dumps(value)


def _load_any(document: dict[str, Any], environ: dict[str, str]) -> None:
    text = "\n".join(f"{name} = {_toml(value)}" for name, value in document.items())
    Path("agent.toml").write_bytes(text.encode(errors="surrogatepass"))
    try:
        load(Path("agent.toml"), environ)
    except ConfigError as error:
        problems = error.problems
    else:
        return
    assert problems
    assert all(problem.message and str(problem).isprintable() for problem in problems)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents)
def test_any_document_is_accepted_or_refused(directory: Path, document: dict[str, Any]) -> None:
    _load_any(document, {})


variables = st.lists(st.sampled_from([*json_schema()["properties"], "x", "", *sorted(set(_keys()))]), max_size=4).map(
    lambda parts: "POMAGENT_" + "__".join(parts).upper()
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(variables, texts | st.sampled_from(["[1]", '["x"]', "{}", "1", "true"]), max_size=4))
def test_any_environment_is_accepted_or_refused(write: Callable[..., Path], environ: dict[str, str]) -> None:
    write("agent.toml", "")
    _load_any({"routes": [{"from": "a:1", "listen": "127.0.0.1:1"}]}, environ)
