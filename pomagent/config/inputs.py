"""Tracks the files that one load reads: which to watch, and one hash over all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pomagent.runtime.files import FileContent, read_file

SHA_LENGTH = 12
"""Hexadecimal digits shown of 64, enough to distinguish versions of a file by eye."""


class Inputs:
    """The files and directories that the settings depend on."""

    def __init__(self, stored: Mapping[Path, bytes] | None = None) -> None:
        """``stored`` maps absolute paths to contents that replace those files."""
        self._stored = stored or {}
        self._watched: set[Path] = set()
        self._digest = hashlib.sha256()

    def read(self, path: Path, *, limit: int) -> FileContent:
        """Return a file and include it in the hash. Blocks. Raises FileError."""
        self.watch(path)
        found = read_file(path, limit=limit)
        self.add(path, found.content)
        return found

    def read_configuration(self, path: Path, *, limit: int) -> bytes:
        """Return a TOML file, from the stored ones if it is among them. Blocks. Raises FileError."""
        self.watch(path)
        if (stored := self._stored.get(path.absolute())) is None:
            return self.read(path, limit=limit).content
        self.add(path, stored)
        return stored

    def watch(self, path: Path) -> None:
        """Request a reload whenever ``path`` changes, even if it cannot be read now."""
        self._watched.add(path.absolute())

    def add(self, path: Path, content: bytes) -> None:
        """Include in the hash a content that was read elsewhere."""
        self._digest.update(b"%s\0%d\0" % (str(path.absolute()).encode(errors="surrogateescape"), len(content)))
        self._digest.update(content)

    @property
    def watched(self) -> frozenset[Path]:
        return frozenset(self._watched)

    @property
    def sha(self) -> str:
        return self._digest.hexdigest()[:SHA_LENGTH]
