"""TOML is bounded before it is parsed; strings and comments do not count."""

from __future__ import annotations

import tomllib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pomagent.config.toml import (
    MAX_DEPTH,
    MAX_FILE_BYTES,
    MAX_ITEMS,
    MAX_KEY_PARTS,
    MAX_NUMBER_CHARACTERS,
    TomlError,
    check_limits,
    parse_toml,
)


def _dotted(parts: int) -> str:
    return ".".join(["a"] * parts) + " = 1"


def _quoted_key(parts: int) -> str:
    return " . ".join(['"a.b"', "'c'"] * (parts // 2) + ["d"] * (parts % 2)) + " = 1"


def _header(parts: int) -> str:
    return "[[" + ".".join(["a"] * parts) + "]]"


def _inline(parts: int) -> str:
    return "t = { " + _dotted(parts) + " }"


def _arrays(depth: int) -> str:
    return "a = " + "[" * depth + "]" * depth


def _inline_tables(depth: int) -> str:
    return "a = " + "{b = " * depth + "1" + "}" * depth


def _arrays_on_lines(depth: int) -> str:
    return "a = " + "[ # ]\n" * depth + "]\n" * depth


def _integer(characters: int) -> str:
    return "a = " + "9" * characters


def _hexadecimal(characters: int) -> str:
    return "a = [1, 0x" + "F" * (characters - 2) + "]"


def _decimal(characters: int) -> str:
    return "a = -0." + "1" * (characters - 2)


def _elements(count: int) -> str:
    return "a = [" + "1," * (count - 1) + "]"


def _tables(count: int) -> str:
    return "\n".join(f"[t{number}]" for number in range(count))


LIMITS = [
    *[(write, MAX_KEY_PARTS, "a key with more than 32 parts") for write in (_dotted, _quoted_key, _header, _inline)],
    *[
        (write, MAX_DEPTH, "more than 32 nested arrays and tables")
        for write in (_arrays, _inline_tables, _arrays_on_lines)
    ],
    *[
        (write, MAX_NUMBER_CHARACTERS, "a number with more than 64 characters")
        for write in (_integer, _hexadecimal, _decimal)
    ],
    *[
        (write, MAX_ITEMS, "more than 400000 tables, array elements and parts of keys")
        for write in (_elements, _tables)
    ],
]


@pytest.mark.parametrize(("write", "limit", "what"), LIMITS)
class TestLimits:
    def test_a_text_within_the_limit_is_accepted(self, write: Callable[[int], str], limit: int, what: str) -> None:
        for size in (limit - 1, limit):
            check_limits(write(size))
        tomllib.loads(write(min(limit, 100)))

    def test_a_text_over_the_limit_is_refused_with_its_line(
        self, write: Callable[[int], str], limit: int, what: str
    ) -> None:
        with pytest.raises(TomlError, match=f"^has {what}$") as refusal:
            check_limits('x = """\n\n"""\n' + write(limit + 1))
        assert refusal.value.line >= 4


def test_the_line_is_that_of_the_first_excess() -> None:
    with pytest.raises(TomlError) as refusal:
        check_limits("# one\n\na = '''\n'''\n" + _dotted(33) + "\n" + _dotted(34))
    assert refusal.value.line == 5


@pytest.mark.parametrize("quotes", ['"', "'", '"""', "'''"])
@pytest.mark.parametrize("write", [_dotted, _arrays, _integer])
def test_strings_and_comments_are_not_counted(write: Callable[[int], str], quotes: str) -> None:
    text = f"a = {quotes}{write(1000)}{quotes} # {write(1000)}\n"
    check_limits(text)
    assert parse_toml(text.encode())[1] == {"a": write(1000)}


def test_ten_thousand_routes_are_within_every_limit() -> None:
    text = '[gateways.corp]\nurl = "https://pomerium.corp.example.com"\n' + "".join(
        f'[[routes]]\nname = "orders-{n}"\nfrom = "tcp+https://orders-{n}.databases.corp.example.com:5432"\n'
        f'listen = "127.0.{n // 250}.{n % 250}:5432"\ngateway = "corp"\npool_min = 1\npool_max = 4\n'
        'pool_decay_s = 1800.5\nidle_timeout_s = 3600.0\nallow_users = ["orders", "root", 1000]\n'
        'tags = ["databases", "production", "team-orders", "eu", "critical"]\n'
        f'description = "The database of orders, shard {n} of the production cluster"\n\n'
        for n in range(10_000)
    )
    assert len(text) < MAX_FILE_BYTES
    check_limits(text)


@pytest.mark.parametrize(
    "text", ['\\"""' * 100_000, '"' * 300_000, "'''a" * 100_000, "a" * 300_000, "a " * 200_000, '"\\' * 200_000]
)
def test_a_text_without_structure_is_left_to_the_parser(text: str) -> None:
    check_limits(text)
    with pytest.raises(TomlError, match="not valid TOML"):
        parse_toml(text.encode())


@given(st.text("ab\"'\\#[]{}=.,\n1 ", max_size=80))
def test_no_short_text_exceeds_a_limit(text: str) -> None:
    """A text too short to exceed a limit is never refused, whether its quotes are closed or not."""
    check_limits(text[: MAX_DEPTH - 1])
