"""Standard input and output as the local side of a session: terminals, pipes, files and sockets alike.

Their flags are left alone: making a terminal non-blocking would do so to every program that shares it. Instead nothing
is read that poll(2) has not promised, and no more is written at a time than a pipe takes once it is writable. Of a
terminal poll(2) promises less than that (a single byte, and one line feed is two), so it is opened once more.
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
"""PIPE_BUF: a write of so much to a writable pipe does not block (pipe(7))."""


class StdioClient:
    """Reads from one descriptor and writes to another."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink, self._own_sink = source, sink, _own(sink)
        if self._own_sink is not None:
            self._sink = self._own_sink
        loop = get_hub().loop
        self._reader = loop.io(self._source, 1)
        self._writer = loop.io(self._sink, 2)
        self._loss: StreamLost | None = None
        self._has_ended = False
        self._is_closed = False

    @property
    def loss(self) -> StreamLost | None:
        """Why the sink takes nothing more, if that is so."""
        return self._loss

    def recv_into(self, buffer: memoryview) -> int | None:
        if self._loss is not None:
            raise self._loss
        if self._has_ended:
            return 0  # the rest of the source is for whoever reads it after us
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
            self._loss = lost(error)  # a sink without a reader ends the session, whatever the source still has
            if not sent:
                raise self._loss from error
        return sent

    def flush(self, timeout_s: float | None = None) -> bool:  # noqa: ARG002 - others need it
        """Nothing to do: what ``send`` took is with the kernel."""
        return True

    def wait_readable(self, timeout_s: float | None = None) -> bool:
        return wait_for(self._reader, timeout_s)

    def wait_writable(self, timeout_s: float | None = None) -> bool:
        return wait_for(self._writer, timeout_s)

    def send_eof(self) -> None:
        """Leave the rest of the source unread; the end of the process closes the sink."""
        self._has_ended = True

    def unsent_bytes(self) -> int:
        return 0

    def is_lost(self) -> bool:
        """Whether nobody reads the sink any more."""
        return _ready(self._sink, 0)

    def is_at_end(self) -> bool:
        return False

    def has_closed(self) -> bool | None:
        """After the end of the source, only a sink without a reader says that nobody waits for the answer."""
        return self.is_lost()

    def user(self) -> int:
        return os.geteuid()

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            for watcher in (self._reader, self._writer):
                watcher.stop()
                watcher.close()
            if self._own_sink is not None:
                os.close(self._own_sink)

    def abort(self) -> None:
        self.close()


def _own(sink: int) -> int | None:
    """A non-blocking descriptor of our own for a terminal; None for anything else, or if we may not open it."""
    if os.isatty(sink):
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{sink}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return None


def _ready(descriptor: int, events: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, events)  # errors and hang-ups are reported unasked
    return bool(poll.poll(0))
