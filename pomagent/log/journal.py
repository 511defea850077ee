"""systemd's journal and its native protocol: an entry is its fields, https://systemd.io/JOURNAL_NATIVE_PROTOCOL/."""

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
"""Where the journal listens; in a unit with ``LogNamespace=`` another one stands there."""
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
"""Of the memory that is handed over: the journal takes none that could change under its hands."""
_TOO_LARGE: Final = (errno.EMSGSIZE, errno.ENOBUFS)


def leads_to_journal(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether what is written there goes to the journal, as systemd.exec(5) has it be found out."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def journal_behind(fd: int, environ: Mapping[str, str], path: str = SOCKET) -> JournalSocket | None:
    """The journal that reads ``fd``, to be told in its own words; None if it does not, or cannot be reached."""
    if not leads_to_journal(fd, environ):
        return None
    journal = JournalSocket(path)
    return journal if journal.connect() else None


def encode(fields: Mapping[str, str]) -> bytes:
    """The fields as they stand in an entry."""
    plain = "".join([f"{name}={value}\n" for name, value in fields.items() if "\n" not in value])
    long = [(name, value.encode(errors="backslashreplace")) for name, value in fields.items() if "\n" in value]
    return plain.encode(errors="backslashreplace") + b"".join(
        b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(value)), value) for name, value in long
    )


class JournalSocket:
    """Hands entries over, without ever waiting; one thread may use it."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def connect(self) -> bool:
        """Whether the journal can be reached, now or again."""
        if self._socket is None:
            with suppress(OSError):
                # Connected, so that poll() tells when there is room in its queue.
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                self._socket.connect(self._path)
                return True
            self.close()
        return self._socket is not None

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    def send(self, entry: bytes) -> None:
        """Raises BlockingIOError while its queue is full, and OSError if it cannot be reached."""
        try:
            self._send(entry)
        except BlockingIOError:
            raise
        except OSError:  # another one listens there by now, or none
            self.close()
            self._send(entry)

    @property
    def has_read_all(self) -> bool:
        """Whether nothing that was sent waits in its queue; it looks up who has sent an entry when it reads it."""
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
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens on {self._path}")
        assert self._socket is not None
        try:
            self._socket.send(entry)
        except OSError as error:
            if error.errno not in _TOO_LARGE:
                raise
            self._send_memory(entry)

    def _send_memory(self, entry: bytes) -> None:
        """For what is too large for a datagram: the datagram says nothing but where the entry is."""
        assert self._socket is not None
        with os.fdopen(os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "wb") as memory:
            memory.write(entry)
            memory.flush()
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
            socket.send_fds(self._socket, [b""], [memory.fileno()])
