"""What the file system says of watched paths: which directory entries decide their meaning, and their fingerprint.

Reads only, keeps nothing, and may wait for a slow disk: for a worker thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, TypeAlias

from pomagent.runtime.files import read_file

MAX_LINKS: Final = 40  # as the kernel; a loop of symbolic links ends here
MAX_HASHED_BYTES: Final = 16 * 1024 * 1024  # ten times a file with 10,000 routes; beyond, its stat has to do

Fingerprint: TypeAlias = Mapping[str, object]


@dataclass(frozen=True)
class Survey:
    """The directory entries whose change may matter, by the real path of their directory."""

    names: Mapping[str, frozenset[str]]
    listed: frozenset[str]
    """Directories of include patterns: there every name that matches ``patterns`` matters, new ones too."""
    patterns: tuple[str, ...]

    def concerns(self, path: str) -> bool:
        """Says whether a change of this directory entry may be one of ours."""
        directory, _, name = path.rpartition("/")
        directory = directory or "/"
        return name in self.names.get(directory, ()) or (directory in self.listed and _matches(name, self.patterns))


def survey(paths: Iterable[Path], patterns: tuple[str, ...]) -> Survey:
    """Follows every path, hop by hop, to the entries that would change if it came to mean something else.

    Those are its symbolic links, itself, the first missing part, and the directories that hold one of these: each of
    them may be replaced as a whole.
    """
    names: dict[str, set[str]] = defaultdict(set)
    listed = set()
    for path in _with_listed(paths, patterns):
        for directory, name in _hops(path):
            names[str(directory)].add(name)
            if directory.name:
                names[str(directory.parent)].add(directory.name)
        if _is_directory(path):
            listed.add(str(path.resolve()))
            names.setdefault(str(path.resolve()), set())
    return Survey({directory: frozenset(found) for directory, found in names.items()}, frozenset(listed), patterns)


def fingerprint(paths: Iterable[Path], patterns: tuple[str, ...]) -> Fingerprint:
    """Two equal ones mean: nothing has changed, content and permissions included."""
    return {str(path): _print_of(path) for path in _with_listed(paths, patterns)}


def _with_listed(paths: Iterable[Path], patterns: tuple[str, ...]) -> Iterator[Path]:
    """The paths, and what directories among them list."""
    for path in paths:
        yield path
        with suppress(OSError):
            yield from (entry for entry in path.iterdir() if _matches(entry.name, patterns))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _hops(path: Path) -> Iterator[tuple[Path, str]]:
    """The symbolic links on the way to the file, and the file itself, each as real directory and name."""
    here, todo, links = Path("/"), list(reversed(path.absolute().parts[1:])), 0
    while todo:
        name = todo.pop()
        if name == "..":
            here = here.parent
            continue
        entry = here / name
        target = _link_target(entry)
        is_missing = not os.path.lexists(entry)
        if target is not None or is_missing or not todo:
            yield here, name
        if is_missing:
            return
        if target is None:
            here = entry
            continue
        links += 1
        if links > MAX_LINKS:
            return
        here = Path("/") if target.is_absolute() else here
        todo.extend(reversed([part for part in target.parts if part != "/"]))


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # not ours to see
        return False


def _link_target(entry: Path) -> Path | None:
    try:
        return entry.readlink()
    except OSError:
        return None


def _print_of(path: Path) -> object:
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            return found.st_dev, found.st_ino
        return _stable(found), _digest(path, found)
    except OSError as error:
        return error.errno


def _stable(found: os.stat_result) -> tuple[int, ...]:
    """Everything of a stat that reading does not change."""
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns


def _digest(path: Path, found: os.stat_result) -> bytes:
    """Of the content; a change within one tick of the clock, or one that restores the time, shows only here."""
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_HASHED_BYTES:
        return b""
    return hashlib.blake2b(read_file(path, limit=MAX_HASHED_BYTES).content, digest_size=16).digest()
