"""Finds the line of each key of a TOML text.

``tomllib`` returns no positions. When a message needs a line, this scanner reads the text, which ``tomllib`` has
accepted, again for its keys. It never fails: where it cannot follow the text, it returns the lines found so far.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""Keys and, below arrays, indices: ``("routes", 3, "listen")``."""

_SKIP = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*(?:([A-Za-z0-9_-]+)|"((?:[^"\\\n]|\\.)*)"|'([^'\n]*)')[ \t]*""")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\[\s\S]|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
)
_BARE = re.compile(r"[^\s,\]}#](?:[^\n,\]}#]*[^\s,\]}#])?")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


def lines_of_keys(text: str) -> Mapping[KeyPath, int]:
    """Return the line, counted from 1, where each key path first appears."""
    scanner = _Scanner(text)
    with suppress(_LostError, RecursionError):  # some lines are better than none
        scanner.scan()
    return scanner.lines


class _LostError(Exception):
    """The scanner cannot follow the text."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.lines: dict[KeyPath, int] = {}
        self._at = 0
        self._line = 1
        self._counted_to = 0
        self._last_index: dict[KeyPath, int] = {}
        """Index of the current element of each array of tables."""

    def scan(self) -> None:
        table: KeyPath = ()
        while self._skip_to_next():
            if self._take("[["):
                table = self._array_header(self._key("]]"))
            elif self._take("["):
                table = self._below(self._key("]"))
                self._note(table)
            else:
                self._assignment(table)

    def _array_header(self, parts: KeyPath) -> KeyPath:
        array = (*self._below(parts[:-1]), parts[-1])
        index = self._last_index[array] = self._last_index.get(array, -1) + 1
        self._note((*array, index))
        return (*array, index)

    def _below(self, parts: KeyPath) -> KeyPath:
        """Return the path with the current index after each array of tables."""
        path: KeyPath = ()
        for part in parts:
            path = (*path, part)
            if path in self._last_index:
                path = (*path, self._last_index[path])
        return path

    def _assignment(self, table: KeyPath) -> None:
        start = self._at
        path = table + self._key("=")
        self._note(path, start)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        self._skip_to_next()
        if self._take("["):
            self._array(path)
        elif self._take("{"):
            self._inline_table(path)
        elif scalar := _STRING.match(self.text, self._at) or _BARE.match(self.text, self._at):
            self._at = scalar.end()
        else:
            raise _LostError

    def _array(self, path: KeyPath) -> None:
        index = 0
        while self._skip_to_next() and not self._take("]"):
            self._note((*path, index))
            self._value((*path, index))
            self._skip_to_next()
            self._take(",")
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        while self._skip_to_next() and not self._take("}"):
            self._assignment(path)
            self._skip_to_next()
            self._take(",")

    def _key(self, end: str) -> KeyPath:
        parts: list[str] = []
        while match := _KEY.match(self.text, self._at):
            self._at = match.end()
            bare, basic, literal = match.groups()
            parts.append(bare if bare is not None else literal if literal is not None else _unescape(basic))
            if self._take(end):
                return tuple(parts)
            if not self._take("."):
                break
        raise _LostError

    def _note(self, path: KeyPath, position: int | None = None) -> None:
        position = self._at if position is None else position
        self._line += self.text.count("\n", self._counted_to, position)
        self._counted_to = position
        while path and path not in self.lines:
            self.lines[path] = self._line
            path = path[:-1]

    def _skip_to_next(self) -> bool:
        match = _SKIP.match(self.text, self._at)
        self._at = match.end() if match else self._at
        return self._at < len(self.text)

    def _take(self, token: str) -> bool:
        if self.text.startswith(token, self._at):
            self._at += len(token)
            return True
        return False


def _unescape(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        short, long, single = match.groups()
        return _ESCAPED.get(single, single) if single else chr(int(short or long, 16))

    return _ESCAPE.sub(character, text) if "\\" in text else text
