"""The TOML files of a configuration, and where in them a table stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pomagent.config.inputs import Inputs
from pomagent.config.model import ENV_DELIMITER, ENV_PREFIX
from pomagent.config.positions import KeyPath, lines_of_keys
from pomagent.errors import Problem

MAX_FILE_BYTES = 16 * 1024 * 1024  # 100,000 routes; what is larger is not a configuration

_TOML_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(eq=False)
class Document:
    """One file that was read and is valid TOML."""

    path: Path
    """As it was given, for messages."""
    text: str
    data: dict[str, Any]
    order: int = 0
    content: bytes = b""
    """As it was read."""

    @property
    def directory(self) -> Path:
        """What relative paths in the file are relative to."""
        return self.path.absolute().parent

    def line(self, path: KeyPath) -> int:
        """Where ``path`` stands, or the nearest table around it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines[path] if path else 0

    @cached_property
    def _lines(self) -> Mapping[KeyPath, int]:
        return lines_of_keys(self.text)  # only when something is to be said about the file


@dataclass(frozen=True, slots=True)
class Place:
    """A table: where it stands, and what messages call it."""

    document: Document
    path: KeyPath
    label: str
    overridden: frozenset[str] = field(default=frozenset())
    """The keys that the environment has set."""

    def problem(self, key: str, message: str) -> Problem:
        """Something to say about one key, or with "" about the table."""
        if key in self.overridden:
            return Problem(None, 0, self._variable(key), _printable(message))
        path = (*self.path, key) if key else self.path
        name = f"{self.label}.{key}".strip(".")
        return Problem(self.document.path, self.document.line(path), _printable(name), _printable(message))

    def file(self, path: str) -> Path:
        """Makes a path of this table absolute."""
        return self.document.directory / path

    def _variable(self, key: str) -> str:
        return ENV_PREFIX + ENV_DELIMITER.join([*map(str, self.path), key]).upper().removesuffix(ENV_DELIMITER)


def _printable(text: str) -> str:
    """Keeps what the file says from steering the terminal that shows it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def read_document(path: Path, inputs: Inputs, order: int = 0) -> Document | Problem:
    """Reads and parses one file, or says why that is impossible. Blocks."""
    try:
        content = inputs.read(path, limit=MAX_FILE_BYTES)
    except OSError as error:
        return Problem(path, 0, "", f"cannot be read: {error.strerror}")
    except ValueError as error:
        return Problem(path, 0, "", str(error))
    return _parse(path, content, order)


def _parse(path: Path, content: bytes, order: int) -> Document | Problem:
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Problem(path, line, "", "not valid TOML: not UTF-8")
    try:
        return Document(path, text, tomllib.loads(text), order, content)
    except RecursionError:
        return Problem(path, 0, "", "not valid TOML: nested too deeply")
    except ValueError as error:
        return _syntax_problem(path, text, str(error))


def _syntax_problem(path: Path, text: str, message: str) -> Problem:
    found = _TOML_POSITION.search(message)
    sentence = _TOML_POSITION.sub("", message)
    line = column = 0
    if found and found[1]:
        line, column = int(found[1]), int(found[2])
    elif found:
        line, column = text.count("\n") + 1, len(text) - text.rfind("\n")
    return Problem(path, line, "", f"not valid TOML: {sentence[:1].lower()}{sentence[1:]}", column)
