"""Determines which directory entries watched paths depend on, and a fingerprint of their contents.

Only reads, and keeps no state. May wait for a slow disk, so call it in a worker thread.
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

MAX_LINKS: Final = 40
"""Maximum symbolic links to follow in one path. It is the kernel's limit and ends a loop of links."""
MAX_HASHED_BYTES: Final = 16 * 1024 * 1024
"""Maximum size of a file that is hashed, ten times one with 10,000 routes. Of larger ones, the stat is compared."""

Fingerprint: TypeAlias = Mapping[str, object]


@dataclass(frozen=True)
class Survey:
    """The directory entries that watched paths depend on, by the real path of their directory."""

    names: Mapping[str, frozenset[str]]
    listed: frozenset[str]
    """Directories of include patterns, in which every name that matches ``patterns`` matters, including new ones."""
    patterns: tuple[str, ...]

    def concerns(self, path: str) -> bool:
        """Return whether a watched path may depend on this directory entry."""
        directory, _, name = path.rpartition("/")
        directory = directory or "/"
        return name in self.names.get(directory, ()) or (directory in self.listed and _matches(name, self.patterns))


def survey(paths: Iterable[Path], patterns: tuple[str, ...]) -> Survey:
    """Return the directory entries that have to change before a path can lead to another file.

    These are its symbolic links, the file itself, the first missing part, and the directories that contain one of
    these, because each of them may be replaced as a whole.
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
    """Return a value that is equal as long as neither contents nor permissions change."""
    return {str(path): _print_of(path) for path in _with_listed(paths, patterns)}


def _with_listed(paths: Iterable[Path], patterns: tuple[str, ...]) -> Iterator[Path]:
    """Yield the paths, and the matching entries of directories among them."""
    for path in paths:
        yield path
        with suppress(OSError):
            yield from (entry for entry in path.iterdir() if _matches(entry.name, patterns))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _hops(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the symbolic links on the way to the file and the file itself, each as real directory and name."""
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
    except OSError:  # permission denied
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
            return found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_gid
        return _stable(found), _digest(path, found)
    except OSError as error:
        return error.errno


def _stable(found: os.stat_result) -> tuple[int, ...]:
    """Return the fields of a stat that reading does not change."""
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns


def _digest(path: Path, found: os.stat_result) -> bytes:
    """Hash the contents. Only this shows a change within one tick of the clock, or one that restores the time."""
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_HASHED_BYTES:
        return b""
    return hashlib.blake2b(read_file(path, limit=MAX_HASHED_BYTES).content, digest_size=16).digest()
