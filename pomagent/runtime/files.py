"""Reads files wholly, within a limit, without ever waiting for a pipe or a device.

Every file that the agent reads is opened here, because any path in ``agent.toml`` may lead to a FIFO, a device or a
file without end, and none of these may stall a thread or exhaust memory.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class FileError(OSError):
    """A file cannot be used. ``reason`` completes the sentence that begins with its path."""

    def __init__(self, path: Path, reason: str, errno: int | None = None) -> None:
        super().__init__(errno, reason, str(path))
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


@dataclass(frozen=True, slots=True)
class FileContent:
    """The content of a regular file, with the facts that decide whether it may be trusted."""

    content: bytes
    mode: int
    """Permission bits, such as ``0o640``."""
    owner: int
    """User id."""
    modified_ns: int
    """Time of the last modification, in nanoseconds since the epoch."""


def read_file(path: Path, *, limit: int, follow_links: bool = True, dir_fd: int | None = None) -> FileContent:
    """Return the whole content of a regular file of at most ``limit`` bytes.

    Blocks for the disk, never for a pipe or device. Raises FileError. ``follow_links`` concerns the
    last part of the path only.
    """
    try:
        # Checked before opening, too: to open a device or a pipe can have effects (a watchdog starts, a writer wakes).
        _check_kind(path, os.stat(path, dir_fd=dir_fd, follow_symlinks=follow_links))
        descriptor = os.open(path, _FLAGS if follow_links else _FLAGS | os.O_NOFOLLOW, dir_fd=dir_fd)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            _check_kind(path, status)
            content: bytes | None = file.read(limit + 1)
    except FileError:
        raise
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}", error.errno) from error
    except ValueError as error:
        raise FileError(path, "is not a path: it contains a NUL") from error
    if content is None:  # some files below /proc have nothing to read at the moment
        raise FileError(path, "cannot be read: no data is available")
    if len(content) > limit:
        raise FileError(path, f"is larger than {limit} bytes")
    return FileContent(content, stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime_ns)


def _check_kind(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a symbolic link")
        raise FileError(path, f"is not a regular file but {kind}")
