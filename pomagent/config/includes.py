"""Finds the files that ``agent.include`` names. What cannot be read is an error, never an empty directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pomagent.config.documents import Document
from pomagent.config.inputs import Inputs
from pomagent.runtime.files import FileError

_MAGIC = frozenset("*?[")
_ANY_DEPTH = "**"


class IncludedFiles:
    """The included files of one load, each once however many patterns match it."""

    def __init__(self, main: Document, inputs: Inputs) -> None:
        self._base = main.path.parent
        self._inputs = inputs
        self._seen = {os.path.realpath(main.path)}
        self.unreadable: list[FileError] = []
        """Directories and entries with unknown contents."""

    def of(self, pattern: str) -> list[Path]:
        """Return the files of a pattern, and watch the directories where more may appear. Blocks.

        Raises ValueError if the pattern is not one.
        """
        _check_pattern(pattern)
        found = []
        for path in self._matches(Path(pattern)):
            real = os.path.realpath(path)
            if real not in self._seen:
                self._seen.add(real)
                found.append(path)
        return found

    def _matches(self, pattern: Path) -> Iterator[Path]:
        if is_literal(str(pattern)):
            self._inputs.watch((self._base / pattern).parent)
            yield self._base / pattern
            return
        first = next(i for i, part in enumerate(pattern.parts) if not is_literal(part))
        yield from self._search(self._base.joinpath(*pattern.parts[:first]), pattern.parts[first:])

    def _search(self, directory: Path, parts: Sequence[str]) -> Iterator[Path]:
        """Yield the files below a directory that match the parts of a pattern, in the order of their names."""
        self._inputs.watch(directory)
        name, *rest = parts
        if name == _ANY_DEPTH:
            if rest:
                yield from self._search(directory, rest)
            for entry in self._entries(directory):
                if not entry.is_symlink() and self._is_directory(entry):
                    yield from self._search(entry, parts)
            return
        for entry in self._entries(directory):
            if not fnmatchcase(entry.name, name) or (not rest and _is_hidden(entry.name, name)):
                continue
            is_directory = self._is_directory(entry)
            if rest and is_directory:
                yield from self._search(entry, rest)
            elif not rest and is_directory is False:
                yield entry

    def _entries(self, directory: Path) -> list[Path]:
        try:
            return sorted(directory.iterdir())
        except OSError as error:
            self.unreadable.append(FileError(directory, f"cannot be listed: {error.strerror}", error.errno))
            return []

    def _is_directory(self, entry: Path) -> bool | None:
        """Return whether an entry is or leads to a directory, or None, with an error noted, if that is unknown."""
        try:
            return stat.S_ISDIR(entry.stat().st_mode)
        except OSError as error:
            self._inputs.watch(entry)
            self.unreadable.append(FileError(entry, f"cannot be read: {error.strerror}", error.errno))
            return None


def _check_pattern(pattern: str) -> None:
    """Raise ValueError if a pattern cannot name files."""
    parts = Path(pattern).parts
    if not parts or "\0" in pattern or any(_ANY_DEPTH in part and part != _ANY_DEPTH for part in parts):
        raise ValueError(pattern)


def names_to_watch(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns of directory entries that can affect the include: files, and directories on their paths."""
    return tuple(dict.fromkeys(name for pattern in patterns for name in _names_after_fixed(Path(pattern))))


def _names_after_fixed(pattern: Path) -> Sequence[str]:
    first = next((i for i, part in enumerate(pattern.parts) if not is_literal(part)), len(pattern.parts) - 1)
    return pattern.parts[max(first, 0) :]


def is_literal(pattern: str) -> bool:
    """Return whether the pattern, or a part of one, names one entry."""
    return not _MAGIC.intersection(pattern)


def _is_hidden(name: str, pattern: str) -> bool:
    """As in a shell, a pattern does not match hidden files: editors' locks and backups (.#orders.toml)."""
    return name.startswith(".") and not pattern.startswith(".")
