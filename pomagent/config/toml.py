"""Checks size and shape of TOML before parsing it, so that no file can exhaust memory.

``tomllib`` has no limits of its own: its cost is quadratic in the parts of a dotted key (a key of 1 MB took 23 GB), and
each table costs about 1 KB.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

MAX_FILE_BYTES: Final = 8 * 1024 * 1024
"""Maximum size of one TOML file. 10,000 routes with names, tags and descriptions take 3 MB."""
MAX_KEY_PARTS: Final = 32
"""Maximum parts of one dotted key or table header. ``agent.toml`` needs 3."""
MAX_DEPTH: Final = 32
"""Maximum nesting of arrays and inline tables. ``agent.toml`` needs 3."""
MAX_NUMBER_CHARACTERS: Final = 64
"""Maximum characters of a number or date without its sign; Python converts no integer over 4,300 digits to text."""
MAX_ITEMS: Final = 400_000
"""Maximum tables, array elements and further parts of dotted keys in one file. Each takes up to 1 KB of memory.

Counted are brackets, commas and dots outside strings: 10,000 routes with five tags and five decimal fractions each
have 130,000.
"""

# Every quote starts a match, closed or not, and no group backtracks: the time is linear in the text.
_QUOTED_OR_COMMENT: Final = re.compile(
    r'"""(?:[^"\\]++|\\[\s\S]|"(?!""))*+(?:"{3,5})?'
    r"|'''(?:[^']++|'(?!''))*+(?:'{3,5})?"
    r'|"(?:[^"\\\n]++|\\.)*+"?'
    r"|'[^'\n]*+'?"
    r"|#[^\n]*+"
)
_WORD_START: Final = r"(?<![^\s.=\[\]{},])"
_LONG_KEY: Final = re.compile(rf"{_WORD_START}(?:[^\s.=\[\]{{}},]++[ \t]*+\.[ \t]*+){{{MAX_KEY_PARTS}}}")
_LONG_NUMBER: Final = re.compile(rf"(?<![\w.+:-])[+-]?[0-9][\w.+:-]{{{MAX_NUMBER_CHARACTERS}}}")
_BRACKET: Final = re.compile(r"[\[\]{}]")
_POSITION: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


class TomlError(ValueError):
    """The text is not TOML, or exceeds a limit. ``line`` and ``column`` count from 1 and are 0 if unknown."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


def parse_toml(content: bytes) -> tuple[str, dict[str, Any]]:
    """Return the text of a TOML file, with line ends of Unix, and its data. Raises TomlError."""
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise TomlError("not valid TOML: not UTF-8", content.count(b"\n", 0, error.start) + 1) from None
    check_limits(text)
    try:
        return text, tomllib.loads(text)
    except ValueError as error:
        raise _syntax_error(text, str(error)) from None


def check_limits(text: str) -> None:
    """Raise TomlError for the first line of a text, valid TOML or not, that exceeds a limit."""
    items = depth = 0
    # Line by line: a search of the whole text would keep the interpreter from all other threads.
    for number, line in enumerate(_QUOTED_OR_COMMENT.sub(_blank, text).split("\n"), 1):
        opened = line.count("[") + line.count("{")
        items += line.count(".") + line.count(",") + opened
        if items > MAX_ITEMS:
            raise TomlError(f"has more than {MAX_ITEMS} tables, array elements and parts of keys", number)
        if line.count(".") >= MAX_KEY_PARTS and _LONG_KEY.search(line):
            raise TomlError(f"has a key with more than {MAX_KEY_PARTS} parts", number)
        if len(line) > MAX_NUMBER_CHARACTERS and _LONG_NUMBER.search(line):
            raise TomlError(f"has a number with more than {MAX_NUMBER_CHARACTERS} characters", number)
        if opened or depth:
            depth = _depth_after(line, depth, number)


def _depth_after(line: str, depth: int, number: int) -> int:
    for bracket in _BRACKET.findall(line):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        if depth > MAX_DEPTH:
            raise TomlError(f"has more than {MAX_DEPTH} nested arrays and tables", number)
    return depth


def _blank(match: re.Match[str]) -> str:
    """Replace a string by one quote, which may be part of a key, and a comment by nothing, and keep the lines."""
    quoted = match[0]
    return "" if quoted[0] == "#" else '"' + "\n" * quoted.count("\n")


def _syntax_error(text: str, message: str) -> TomlError:
    sentence = _POSITION.sub("", message)
    line = column = 0
    if found := _POSITION.search(message):
        at_the_end = (text.count("\n") + 1, len(text) - text.rfind("\n"))
        line, column = (int(found[1]), int(found[2])) if found[1] else at_the_end
    return TomlError(f"not valid TOML: {sentence[:1].lower()}{sentence[1:]}", line, column)
