"""The scanner finds every key that tomllib finds, on its line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pomagent.config.positions import KeyPath, lines_of_keys


def _paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in items:
        yield from _paths(inner, (*path, step))


EVERYTHING = '''# comment with [brackets] and key = "value"
title = "a # no comment"  # comment

[agent]
include = [
  "a.toml",  # the first
  'b]".toml',
]
text = """
[not.a.table]
key = "no key" \\""" still ""text""
"""
raw = \'\'\'
[[nor.this]]
it''s\'\'\'\'
when = 1979-05-27 07:32:00
"quoted \\"key\\" \\u0041" = 1
'literal.key' = inf
dotted . "x".y = +1_000

[gateways.corp]
url = 'https://x'
inline = { a = 1, b.c = [ { d = 2 }, { d = 3 } ] }
[[routes]]
name = "one"
[routes.extra]
deep = true
[[routes.parts]]
n = 1
[[routes.parts]]
n = 2
[[routes]]  # the second
name = "two"
nested = [[1, 2], [
3]]
'''

LINES = {
    ("title",): 2,
    ("agent",): 4,
    ("agent", "include"): 5,
    ("agent", "include", 0): 6,
    ("agent", "include", 1): 7,
    ("agent", "text"): 9,
    ("agent", "raw"): 13,
    ("agent", "when"): 16,
    ("agent", 'quoted "key" A'): 17,
    ("agent", "literal.key"): 18,
    ("agent", "dotted", "x", "y"): 19,
    ("gateways", "corp"): 21,
    ("gateways", "corp", "url"): 22,
    ("gateways", "corp", "inline", "b", "c", 1, "d"): 23,
    ("routes",): 24,
    ("routes", 0): 24,
    ("routes", 0, "name"): 25,
    ("routes", 0, "extra", "deep"): 27,
    ("routes", 0, "parts", 1, "n"): 31,
    ("routes", 1): 32,
    ("routes", 1, "name"): 33,
    ("routes", 1, "nested", 1, 0): 35,
}


@pytest.mark.parametrize(
    ("path", "line"), LINES.items(), ids=lambda p: ".".join(map(str, p)) if isinstance(p, tuple) else ""
)
def test_a_key_is_found_on_its_line(path: KeyPath, line: int) -> None:
    assert lines_of_keys(EVERYTHING)[path] == line


def test_exactly_the_keys_that_tomllib_finds_have_a_line() -> None:
    assert set(lines_of_keys(EVERYTHING)) == set(_paths(tomllib.loads(EVERYTHING)))


def test_windows_line_ends_count_once() -> None:
    assert lines_of_keys("a = 1\r\n\r\nb = 2\r\n")["b",] == 3


keys = st.text("abcAB-_ .\"'#[]=é\t", min_size=1, max_size=4)
texts = st.text("ab\"'\\#[]{}=,\n\té ", max_size=12)
scalars = st.integers() | st.booleans() | texts | st.datetimes().map(lambda d: d.replace(microsecond=0)) | st.just(0.5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)


def _quoted(text: str) -> str:
    escaped = "".join(f"\\u{ord(c):04x}" if c in '"\\\n\t' else c for c in text)
    return f'"{escaped}"'


def _written(value: Any, separator: str = ", ") -> str:
    match value:
        case bool():
            return str(value).lower()
        case str() if "'" not in value and "\n" in value:
            return f"'''\n{value}'''"
        case str():
            return _quoted(value)
        case list():
            return "[" + separator.join(_written(v, ",\n# ]\n") for v in value) + "]"
        case dict():
            return "{" + ", ".join(f"{_quoted(k)} = {_written(v, ', ')}" for k, v in value.items()) + "}"
    return str(value)


@st.composite
def documents(draw: st.DrawFn) -> str:
    lines = [f"{_quoted(k)} = {_written(v, draw(separators))}" for k, v in draw(tables).items()]
    for name, table in draw(st.dictionaries(names, tables, max_size=3)).items():
        lines += [f"[{name}]", *(f"  {_quoted(k)}={_written(v)} # ] '" for k, v in table.items()), ""]
    for table in draw(st.lists(tables, max_size=3)):
        lines += ["[[ routes ]]", *(f"{_quoted(k)} = {_written(v)}" for k, v in table.items())]
    return "\n".join(lines)


separators = st.sampled_from([", ", ",\n", " , # ] comment\n"])
tables = st.dictionaries(keys, values, max_size=4)
names = st.sampled_from(["x", "y.z", '"q.r" . s', "'u v'"])


@given(documents())
def test_any_document_has_the_keys_that_tomllib_finds(text: str) -> None:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # a generated key was declared twice
    assert set(lines_of_keys(text)) == set(_paths(data))


@given(documents())
def test_lines_follow_the_order_of_the_keys(text: str) -> None:
    found = list(lines_of_keys(text).values())
    assert found == sorted(found)
    assert all(1 <= line <= text.count("\n") + 1 for line in found)


@given(st.text("ab\"'[]{}=,.\n# \\", max_size=60))
def test_a_broken_text_costs_lines_but_never_fails(text: str) -> None:
    lines_of_keys(text)


def test_a_text_nested_beyond_reason_does_not_fail() -> None:
    assert lines_of_keys("a = " + "[" * 100_000)["a",] == 1
