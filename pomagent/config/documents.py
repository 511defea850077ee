"""The TOML files of a configuration, and the positions of their tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pomagent.config.inputs import Inputs
from pomagent.config.model import ENV_DELIMITER, ENV_PREFIX
from pomagent.config.positions import KeyPath, lines_of_keys
from pomagent.config.toml import MAX_FILE_BYTES, TomlError, parse_toml
from pomagent.errors import Problem


@dataclass(eq=False)
class Document:
    """One file of valid TOML."""

    path: Path
    """The path as the operator gave it, for messages."""
    text: str
    data: dict[str, Any]
    order: int = 0
    content: bytes = b""
    """The bytes of the file."""

    @property
    def directory(self) -> Path:
        """The directory that relative paths in the file start from."""
        return self.path.absolute().parent

    def line(self, path: KeyPath) -> int:
        """Return the line of a key, or of the nearest table around it, or 0 if none is known."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines[path] if path else 0

    @cached_property
    def _lines(self) -> Mapping[KeyPath, int]:
        return lines_of_keys(self.text)  # computed only if a problem of the file is reported


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a table, and its name in messages."""

    document: Document
    path: KeyPath
    label: str
    overridden: frozenset[str] = field(default=frozenset())
    """Keys that environment variables have set."""

    def problem(self, key: str, message: str) -> Problem:
        """Return a problem of one key, or of the whole table if the key is empty."""
        if key in self.overridden:
            return Problem(None, 0, self._variable(key), _printable(message))
        path = (*self.path, key) if key else self.path
        name = f"{self.label}.{key}".strip(".")
        return Problem(self.document.path, self.document.line(path), _printable(name), _printable(message))

    def file(self, path: str) -> Path:
        """Return a path given in this table, made relative to its file."""
        return self.document.directory / path

    def _variable(self, key: str) -> str:
        return ENV_PREFIX + ENV_DELIMITER.join([*map(str, self.path), key]).upper().removesuffix(ENV_DELIMITER)


def _printable(text: str) -> str:
    """Replace characters that could control the terminal that shows the message."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def read_document(path: Path, inputs: Inputs, order: int = 0) -> Document | Problem:
    """Return a parsed file, or its problem if it is not valid TOML. Blocks. Raises FileError."""
    content = inputs.read_configuration(path, limit=MAX_FILE_BYTES)
    try:
        text, data = parse_toml(content)
    except TomlError as error:
        return Problem(path, error.line, "", str(error), error.column)
    return Document(path, text, data, order, content)
