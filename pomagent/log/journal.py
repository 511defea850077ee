"""Client of systemd's journal, https://systemd.io/JOURNAL_NATIVE_PROTOCOL/: an entry is a set of fields."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

SOCKET: Final = "/run/systemd/journal/socket"
"""Address of the journal. In a unit with ``LogNamespace=``, another journal listens on it."""
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
"""Seals of a memfd with an entry. The journal accepts only memory that can no longer change."""
_TOO_LARGE: Final = (errno.EMSGSIZE, errno.ENOBUFS)


def leads_to_journal(fd: int, environ: Mapping[str, str]) -> bool:
    """Return whether the journal reads a descriptor, by the check that systemd.exec(5) describes."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def journal_behind(fd: int, environ: Mapping[str, str], path: str = SOCKET) -> JournalSocket | None:
    """Return a connection to the journal that reads ``fd``, or None if no journal does or it cannot be reached."""
    if not leads_to_journal(fd, environ):
        return None
    journal = JournalSocket(path)
    return journal if journal.connect() else None


def encode(fields: Mapping[str, str]) -> bytes:
    """Return fields in the wire format of the journal."""
    plain = "".join([f"{name}={value}\n" for name, value in fields.items() if "\n" not in value])
    long = [(name, value.encode(errors="backslashreplace")) for name, value in fields.items() if "\n" in value]
    return plain.encode(errors="backslashreplace") + b"".join(
        b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(value)), value) for name, value in long
    )


class JournalSocket:
    """Sends entries to the journal without blocking. Used by one thread."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def connect(self) -> bool:
        """Connect if necessary, and return whether the journal can be reached."""
        if self._socket is None:
            with suppress(OSError):
                # Connected, so that poll() reports room in its queue.
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                self._socket.connect(self._path)
                return True
            self.close()
        return self._socket is not None

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    def send(self, entry: bytes) -> None:
        """Send an entry. Raises BlockingIOError while the queue is full, OSError if the journal is unreachable."""
        try:
            self._send(entry)
        except BlockingIOError:
            raise
        except OSError:  # the journal has restarted, or stopped
            self.close()
            self._send(entry)

    @property
    def has_read_all(self) -> bool:
        """Whether the journal has read every entry. Only then does it look up the process that sent one."""
        if self._socket is None:
            return True
        (unread,) = struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)))
        return bool(unread == 0)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, entry: bytes) -> None:
        if not self.connect():
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"no journal listens on {self._path}")
        assert self._socket is not None
        try:
            self._socket.send(entry)
        except OSError as error:
            if error.errno not in _TOO_LARGE:
                raise
            self._send_memory(entry)

    def _send_memory(self, entry: bytes) -> None:
        """Send an entry that is too large for a datagram: the datagram carries a descriptor of memory that holds it."""
        assert self._socket is not None
        with os.fdopen(os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "wb") as memory:
            memory.write(entry)
            memory.flush()
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
            socket.send_fds(self._socket, [b""], [memory.fileno()])
