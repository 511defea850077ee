"""Byte streams over TCP and Unix sockets with explicit blocking calls (``tls_stream`` adds TLS).

``recv_into`` and ``send`` do what can be done at once. Only ``wait_readable`` and ``wait_writable`` switch greenlets.
No switch happens between a ``recv_into`` and the ``send`` of the same bytes, so all sessions share one scratch buffer
and an idle session holds none.

One greenlet may wait for each direction. Before a stream is closed, its owner ends the greenlets that wait on it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import Any, Protocol

from gevent import get_hub

from pomagent.errors import StreamLost
from pomagent.runtime.hub import wait_for
from pomagent.transport import tcp
from pomagent.transport.read_coalescing import LARGE_READ_BYTES, ReadCoalescing

SCRATCH_BYTES = 128 * 1024
"""Bytes of one read: more leave the processor's cache, fewer need too many system calls (both measured)."""

_READ, _WRITE = 1, 2
_recv, _recv_into, _shutdown = socket.socket.recv, socket.socket.recv_into, socket.socket.shutdown
_send, _sendmsg = socket.socket.send, socket.socket.sendmsg
"""The plain socket's methods, also for an ``ssl.SSLSocket``, where methods of these names do TLS."""

Buffer = bytes | bytearray | memoryview


class Stream(Protocol):
    """What the relay needs of either side of a session."""

    def recv_into(self, buffer: memoryview) -> int | None:
        """Read what is available: its length, 0 at an orderly end, None if there is nothing now. Raises StreamLost.

        After a read that did not fill the buffer, wait before the next one: that is cheaper than an empty read.
        """

    def send(self, data: Buffer) -> int:
        """Accept what fits now and return how many bytes that was. Raises StreamLost."""

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until the kernel has all accepted bytes; return False after the timeout. Blocks. Raises StreamLost."""

    def wait_readable(self, timeout_s: float | None = None) -> bool:
        """Wait until ``recv_into`` may return bytes or an end, or return False after the timeout. Blocks."""

    def wait_writable(self, timeout_s: float | None = None) -> bool:
        """Wait until ``send`` may accept something, or return False after the timeout. Blocks."""

    def send_eof(self) -> None:
        """End the sending direction. What was sent before still arrives."""

    def unsent_bytes(self) -> int:
        """Return how many of the sent bytes the other side's kernel has not acknowledged."""

    def is_lost(self) -> bool:
        """Return whether the peer has reset the connection, or has stopped acknowledging."""

    def close(self) -> None:
        """Release the descriptor. Does nothing the second time."""

    def abort(self) -> None:
        """Close with a reset, so that the peer cannot mistake it for an orderly end."""


class SocketStream:
    """A connected TCP or Unix socket, read and written without TLS even where ``tls_over_socket`` uses it."""

    __slots__ = ("_coalescing", "_is_closed", "_reader", "_writer", "loss", "sock")

    carries_half_close = False
    """Over HTTP/1.1 the gateway ends the whole tunnel when this side ends (wire contract §6.3)."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._reader = get_hub().loop.io(sock.fileno(), _READ)
        self._writer: Any = None  # created on demand, which is rare
        self._coalescing: ReadCoalescing | None = None
        """Created by the first large read."""
        self._is_closed = False
        self.loss: StreamLost | None = None
        """The loss that the kernel has reported. It reports a reset once, and an orderly end to later reads."""

    def recv_into(self, buffer: memoryview) -> int | None:
        try:
            count = _recv_into(self.sock, buffer)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self.note_loss(error) from error
        if self._coalescing is not None:
            self._coalescing.note_read(count)
        elif count > LARGE_READ_BYTES:
            self.note_read(count)
        if not count and self.loss is not None:
            raise self.loss
        return count

    def note_read(self, count: int) -> None:
        """Count a read of this many bytes, to detect bulk transfers."""
        if self._coalescing is None:
            if count <= LARGE_READ_BYTES:
                return
            self._coalescing = ReadCoalescing()
        self._coalescing.note_read(count)

    def send(self, data: Buffer) -> int:
        try:
            return _send(self.sock, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self.note_loss(error) from error

    def send_parts(self, parts: Sequence[bytes]) -> int:
        """Accept several buffers in order, like ``send``, without joining them into a copy."""
        try:
            return _sendmsg(self.sock, parts)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self.note_loss(error) from error

    def flush(self, timeout_s: float | None = None) -> bool:  # noqa: ARG002 - other streams need it
        """Return True: the kernel already has what ``send`` accepted."""
        return True

    def wait_readable(self, timeout_s: float | None = None) -> bool:
        if self._coalescing is None:
            return wait_for(self._reader, timeout_s)
        return self._coalescing.wait(self.sock, self._reader, timeout_s)

    def wait_writable(self, timeout_s: float | None = None) -> bool:
        if self._writer is None:
            self._writer = get_hub().loop.io(self.sock.fileno(), _WRITE)
        return wait_for(self._writer, timeout_s)

    def has_news(self) -> bool:
        """Return whether unread bytes, an end or a loss have arrived."""
        try:
            _recv(self.sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def watch(self, callback: object) -> None:
        """Call ``callback`` in the hub whenever the socket is readable, until ``unwatch``. It must not block."""
        self._reader.start(callback)

    def unwatch(self) -> None:
        self._reader.stop()

    def send_eof(self) -> None:
        try:
            _shutdown(self.sock, socket.SHUT_WR)
        except OSError as error:
            raise self.note_loss(error) from error

    def unsent_bytes(self) -> int:
        return 0 if self._is_closed else tcp.unsent_bytes(self.sock)

    def is_lost(self) -> bool:
        return self._is_closed or tcp.is_lost(self.sock)

    def is_dead(self) -> bool:
        """Return whether the peer has stopped acknowledging without closing."""
        return not self._is_closed and tcp.is_dead(self.sock)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        for watcher in (self._reader, self._writer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self.sock.close()

    def abort(self) -> None:
        if not self._is_closed:
            tcp.reset_on_close(self.sock)
        self.close()

    def check_loss(self) -> None:
        """Record a loss that the kernel would report to the next read or write. Earlier bytes can still be read.

        Raises StreamLost if the stream is closed, since nothing can be read from it.
        """
        try:
            number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except OSError as error:
            raise self.note_loss(error) from error
        if number:
            self.note_loss(OSError(number, os.strerror(number)))

    def note_loss(self, error: OSError) -> StreamLost:
        """Record the loss that a failed system call reports, and return it as an error to raise."""
        loss = lost(error)
        if error.errno != errno.EPIPE:  # EPIPE: the peer ended its direction before, and that end is still to be read
            self.loss = loss
        return loss


def lost(error: OSError) -> StreamLost:
    """Return the StreamLost that describes ``error``."""
    return StreamLost(os.strerror(error.errno).lower() if error.errno else str(error))
