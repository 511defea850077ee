"""The files that one load reads: their bytes, what to watch, and one hash over all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pomagent.runtime.files import FileContent, read_file

SHA_LENGTH = 12  # of 64 hexadecimal digits: enough to tell versions of a file apart by eye


class Inputs:
    """Remembers every file and directory that the settings depend on."""

    def __init__(self, stored: Mapping[Path, bytes] | None = None) -> None:
        """``stored`` is read in place of the files of these absolute paths."""
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
        """Calls for a reload whenever ``path`` changes, also where it cannot be read now."""
        self._watched.add(path.absolute())

    def add(self, path: Path, content: bytes) -> None:
        """Counts in what was read elsewhere."""
        self._digest.update(b"%s\0%d\0" % (str(path.absolute()).encode(errors="surrogateescape"), len(content)))
        self._digest.update(content)

    @property
    def watched(self) -> frozenset[Path]:
        return frozenset(self._watched)

    @property
    def sha(self) -> str:
        return self._digest.hexdigest()[:SHA_LENGTH]
