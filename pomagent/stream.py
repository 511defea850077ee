"""Byte streams that never block by surprise: TCP and Unix sockets (``tls_stream`` adds TLS).

``recv_into`` and ``send`` do what can be done at once; ``wait_readable`` and ``wait_writable`` are the only places
that switch. Between a ``recv_into`` and the ``send`` of the same bytes nothing switches, so all sessions share one
scratch buffer and an idle session holds none.

One greenlet may wait for each direction. Whoever closes a stream has ended the greenlets that wait on it before.
"""

from __future__ import annotations

import os
import socket
from typing import Protocol

from gevent import Timeout, get_hub
from gevent.socket import wait

from pomagent import tcp
from pomagent.errors import StreamLost

SCRATCH_BYTES = 64 * 1024
"""Of one read. A ``MemoryBIO`` never shrinks: larger reads would stay with every session that was busy once."""

_READ, _WRITE = 1, 2

Buffer = bytes | bytearray | memoryview


class Stream(Protocol):
    """What the relay needs of either side of a session."""

    def recv_into(self, buffer: memoryview) -> int | None:
        """Read what is there: its length, 0 at an orderly end, None if there is nothing now. Raises StreamLost."""

    def send(self, data: Buffer) -> int:
        """Take what can be taken now and return how much that was. Raises StreamLost."""

    def flush(self) -> None:
        """Return once everything taken is with the kernel. Blocks. Raises StreamLost."""

    def wait_readable(self, timeout_s: float | None = None) -> bool:
        """Blocks until ``recv_into`` may have something; False if the time is over first."""

    def wait_writable(self, timeout_s: float | None = None) -> bool:
        """Blocks until ``send`` may take something; False if the time is over first."""

    def send_eof(self) -> None:
        """Say that nothing more will be sent; what was sent still arrives."""

    def unsent_bytes(self) -> int:
        """How much of what was sent the other side's kernel has not acknowledged."""

    def is_lost(self) -> bool:
        """Whether the other side has reset the connection or has not acknowledged anything for long."""

    def close(self) -> None:
        """Release the descriptor. Does nothing the second time."""

    def abort(self) -> None:
        """Close with a reset, so that nobody takes it for an orderly end."""


class SocketStream:
    """A connected TCP or Unix socket."""

    __slots__ = ("_is_closed", "_reader", "_writer", "sock")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        loop = get_hub().loop
        self._reader = loop.io(sock.fileno(), _READ)
        self._writer = loop.io(sock.fileno(), _WRITE)
        self._is_closed = False

    def recv_into(self, buffer: memoryview) -> int | None:
        try:
            return self.sock.recv_into(buffer)
        except BlockingIOError:
            return None
        except OSError as error:
            raise lost(error) from error

    def send(self, data: Buffer) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise lost(error) from error

    def flush(self) -> None:
        """Nothing to do: what ``send`` took is with the kernel."""

    def wait_readable(self, timeout_s: float | None = None) -> bool:
        return wait_for(self._reader, timeout_s)

    def wait_writable(self, timeout_s: float | None = None) -> bool:
        return wait_for(self._writer, timeout_s)

    def watch(self, callback: object) -> None:
        """Call ``callback`` in the hub whenever there is something to read, until ``unwatch``; it must not block."""
        self._reader.start(callback)

    def unwatch(self) -> None:
        self._reader.stop()

    def send_eof(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise lost(error) from error

    def unsent_bytes(self) -> int:
        return tcp.unsent_bytes(self.sock)

    def is_lost(self) -> bool:
        return tcp.is_lost(self.sock)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        for watcher in (self._reader, self._writer):
            watcher.stop()
            watcher.close()
        self.sock.close()

    def abort(self) -> None:
        if not self._is_closed:
            tcp.close_with_reset(self.sock)
        self.close()


def lost(error: OSError) -> StreamLost:
    return StreamLost(os.strerror(error.errno).lower() if error.errno else str(error))


def wait_for(watcher: object, timeout_s: float | None) -> bool:
    """Blocks until the watcher's descriptor is ready; False if the time is over first."""
    if timeout_s is None:
        wait(watcher)
        return True
    is_ready = False
    with Timeout(timeout_s, False):
        wait(watcher)
        is_ready = True
    return is_ready  # noqa: RET504 - false where the time was over
