"""Byte streams that never block by surprise: TCP and Unix sockets (``tls_stream`` adds TLS).

``recv_into`` and ``send`` do what can be done at once; ``wait_readable`` and ``wait_writable`` are the only places
that switch. Between a ``recv_into`` and the ``send`` of the same bytes nothing switches, so all sessions share one
scratch buffer and an idle session holds none.

One greenlet may wait for each direction. Whoever closes a stream has ended the greenlets that wait on it before.
"""

from __future__ import annotations

import errno
import math
import os
import socket
from collections.abc import Sequence
from typing import Any, Protocol

from gevent import get_hub

from pomagent.errors import StreamLost
from pomagent.runtime.hub import wait_for
from pomagent.transport import tcp

SCRATCH_BYTES = 128 * 1024
"""Of one read: larger ones leave the processor's cache, smaller ones ask the kernel too often (both measured)."""

PLENTY_BYTES = SCRATCH_BYTES
"""Worth a wake-up, to a bulk transfer: to be woken for each piece that a gateway sends costs it a quarter more
processor time over HTTP/2, and over HTTP/1.1 as much where the gateway is slower than we are (measured)."""
PLENTY_WITHIN_S = 0.001
"""If there is no plenty by then, whatever there is will do: the price of a transfer's last piece."""
RUN_BYTES, LONGEST_RUN_BYTES = 4 * 1024 * 1024, 256 * 1024 * 1024
"""Makes a bulk transfer, counted in large reads. It takes twice as much after each wait that brought no plenty, and the
lesser of it again after those that did: who sends block by block and is answered to each pays no such price often."""
_LARGE_READ_BYTES = 16 * 1024

_READ, _WRITE = 1, 2
_recv, _recv_into, _shutdown = socket.socket.recv, socket.socket.recv_into, socket.socket.shutdown
_send, _sendmsg = socket.socket.send, socket.socket.sendmsg
"""The socket's own, also where it is an ``ssl.SSLSocket``, whose methods of these names are about TLS."""

Buffer = bytes | bytearray | memoryview


class Stream(Protocol):
    """What the relay needs of either side of a session."""

    def recv_into(self, buffer: memoryview) -> int | None:
        """Read what is there: its length, 0 at an orderly end, None if there is nothing now. Raises StreamLost.

        Less than the buffer takes: waiting before the next read is cheaper than asking again.
        """

    def send(self, data: Buffer) -> int:
        """Take what can be taken now and return how much that was. Raises StreamLost."""

    def flush(self, timeout_s: float | None = None) -> bool:
        """Whether everything taken is with the kernel; waits for it. Blocks. Raises StreamLost."""

    def wait_readable(self, timeout_s: float | None = None) -> bool:
        """Blocks until ``recv_into`` may have something, new or kept here; False if the time is over first."""

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
    """A connected TCP or Unix socket, read and written as it is, whatever TLS may have it (``tls_over_socket``)."""

    __slots__ = ("_is_closed", "_is_patient", "_reader", "_run_asked", "_run_bytes", "_writer", "loss", "sock")

    carries_half_close = False
    """As a tunnel: over HTTP/1.1 the gateway ends all of it with our end (wire contract §6.3)."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._reader = get_hub().loop.io(sock.fileno(), _READ)
        self._writer: Any = None  # made when it is needed, which is rare
        self._is_closed = False
        self.loss: StreamLost | None = None
        """What the kernel has told of it; to who reads after that a reset looks like an orderly end."""
        self._run_bytes = 0
        """That reads have brought, beyond what makes a large one of each."""
        self._run_asked: float = RUN_BYTES
        self._is_patient = False
        """Whether the kernel wakes us for plenty only."""

    def recv_into(self, buffer: memoryview) -> int | None:
        try:
            count = _recv_into(self.sock, buffer)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self.note_loss(error) from error
        self.has_read(count)
        if not count and self.loss is not None:
            raise self.loss
        return count

    def has_read(self, count: int) -> None:
        """A read brought so much: what is read in large pieces for long is a bulk transfer."""
        self._run_bytes = max(0, self._run_bytes + count - _LARGE_READ_BYTES)

    def send(self, data: Buffer) -> int:
        try:
            return _send(self.sock, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self.note_loss(error) from error

    def send_parts(self, parts: Sequence[bytes]) -> int:
        """As ``send``, one behind the other, without a copy that has all of them."""
        try:
            return _sendmsg(self.sock, parts)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self.note_loss(error) from error

    def flush(self, timeout_s: float | None = None) -> bool:  # noqa: ARG002 - others need it
        """Nothing to do: what ``send`` took is with the kernel."""
        return True

    def wait_readable(self, timeout_s: float | None = None) -> bool:
        if timeout_s is None and self._run_bytes >= self._run_asked and self._is_made_patient():
            self._wait_for_plenty()
            return True
        if self._is_patient:
            self._is_patient = not tcp.wake_for(self.sock, 1)
        return wait_for(self._reader, timeout_s)

    def _is_made_patient(self) -> bool:
        if not self._is_patient:
            self._is_patient = tcp.wake_for(self.sock, PLENTY_BYTES)
            if not self._is_patient:
                self._run_asked = math.inf  # it never will be
        return self._is_patient

    def _wait_for_plenty(self) -> None:
        if wait_for(self._reader, PLENTY_WITHIN_S):
            self._run_asked = max(RUN_BYTES, self._run_asked - PLENTY_BYTES)
        else:
            self._run_bytes, self._run_asked = 0, min(2 * self._run_asked, LONGEST_RUN_BYTES)

    def wait_writable(self, timeout_s: float | None = None) -> bool:
        if self._writer is None:
            self._writer = get_hub().loop.io(self.sock.fileno(), _WRITE)
        return wait_for(self._writer, timeout_s)

    def has_news(self) -> bool:
        """Whether something has come, bytes or an end, that was not read yet."""
        try:
            _recv(self.sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def watch(self, callback: object) -> None:
        """Call ``callback`` in the hub whenever there is something to read, until ``unwatch``; it must not block."""
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
        """Whether the other side has vanished without a word."""
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

    def ask_for_loss(self) -> None:
        """Note what the kernel would tell the next read or write of a loss; what came before it can still be read.

        Raises StreamLost where nothing can be read any more, since it is closed.
        """
        try:
            number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except OSError as error:
            raise self.note_loss(error) from error
        if number:
            self.note_loss(OSError(number, os.strerror(number)))

    def note_loss(self, error: OSError) -> StreamLost:
        """What a failed system call says of the connection."""
        loss = lost(error)
        if error.errno != errno.EPIPE:  # EPIPE: the other side had said its end before, and that is still to be read
            self.loss = loss
        return loss


def lost(error: OSError) -> StreamLost:
    return StreamLost(os.strerror(error.errno).lower() if error.errno else str(error))
