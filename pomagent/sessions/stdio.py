"""Standard input and output as the local side of a session, for terminals, pipes, files and sockets.

Their flags stay unchanged, because making a terminal non-blocking would affect every program that shares it. Instead
each read and write follows a poll(2), and a write is no longer than a writable pipe accepts. For a terminal poll(2)
guarantees less (one byte, while one line feed is two), so the terminal is opened again.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress

from gevent import get_hub

from pomagent.errors import StreamLost
from pomagent.runtime.hub import wait_for
from pomagent.transport.stream import Buffer, lost

ATOMIC_BYTES = 4096
"""PIPE_BUF: the most bytes that a write to a writable pipe accepts without blocking (pipe(7))."""


class StdioClient:
    """Reads from one descriptor and writes to another."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink, self._reopened = source, sink, _reopen(sink)
        if self._reopened is not None:
            self._sink = self._reopened
        loop = get_hub().loop
        self._reader = loop.io(self._source, 1)
        self._writer = loop.io(self._sink, 2)
        self._loss: StreamLost | None = None
        self._has_ended = False
        self._is_closed = False

    @property
    def loss(self) -> StreamLost | None:
        """Why the sink accepts no more bytes, or None while it does."""
        return self._loss

    def recv_into(self, buffer: memoryview) -> int | None:
        if self._loss is not None:
            raise self._loss
        if self._has_ended:
            return 0  # leave the rest of the source to its next reader
        if not _ready(self._source, select.POLLIN):
            return None
        try:
            return os.readv(self._source, [buffer])
        except OSError as error:
            raise lost(error) from error

    def send(self, data: Buffer) -> int:
        view, sent = memoryview(data), 0
        try:
            while sent < len(view) and _ready(self._sink, select.POLLOUT):
                sent += os.write(self._sink, view[sent : sent + ATOMIC_BYTES])
        except BlockingIOError:
            pass
        except OSError as error:
            self._loss = lost(error)  # a sink without a reader ends the session, even if the source has more
            if not sent:
                raise self._loss from error
        return sent

    def flush(self, timeout_s: float | None = None) -> bool:  # noqa: ARG002 - other streams need it
        """Return True: the kernel already has what ``send`` accepted."""
        return True

    def wait_readable(self, timeout_s: float | None = None) -> bool:
        return wait_for(self._reader, timeout_s)

    def wait_writable(self, timeout_s: float | None = None) -> bool:
        return wait_for(self._writer, timeout_s)

    def send_eof(self) -> None:
        """Stop reading the source. The end of the process closes the sink."""
        self._has_ended = True

    def unsent_bytes(self) -> int:
        return 0

    def is_lost(self) -> bool:
        """Return whether the sink has lost its reader."""
        return _ready(self._sink, 0)

    def is_at_end(self) -> bool:
        return False

    def has_closed(self) -> bool | None:
        """Return whether the sink has lost its reader: after the source's end, only that shows an unwanted answer."""
        return self.is_lost()

    def user(self) -> int:
        return os.geteuid()

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            for watcher in (self._reader, self._writer):
                watcher.stop()
                watcher.close()
            if self._reopened is not None:
                os.close(self._reopened)

    def abort(self) -> None:
        self.close()


def _reopen(sink: int) -> int | None:
    """Open a terminal again, non-blocking, or return None for anything else, or without permission to open it."""
    if os.isatty(sink):
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{sink}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return None


def _ready(descriptor: int, events: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, events)  # errors and hang-ups are always reported
    return bool(poll.poll(0))
