"""Standard input and output as the local side of a session: terminals, pipes, files and sockets alike.

Their flags are left alone: making a terminal non-blocking would do so to every program that shares it. Instead nothing
is read that poll(2) has not promised, and no more is written at a time than a pipe takes once it is writable.
"""

from __future__ import annotations

import os
import select

from gevent import get_hub

from pomagent.stream import Buffer, lost, wait_for

ATOMIC_BYTES = 4096
"""PIPE_BUF: a write of so much to a writable pipe does not block (pipe(7))."""


class StdioClient:
    """Reads from one descriptor and writes to another."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink
        loop = get_hub().loop
        self._reader = loop.io(source, 1)
        self._writer = loop.io(sink, 2)
        self._is_closed = False

    def recv_into(self, buffer: memoryview) -> int | None:
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
        except OSError as error:
            if not sent:
                raise lost(error) from error
        return sent

    def flush(self) -> None:
        """Nothing to do: what ``send`` took is with the kernel."""

    def wait_readable(self, timeout_s: float | None = None) -> bool:
        return wait_for(self._reader, timeout_s)

    def wait_writable(self, timeout_s: float | None = None) -> bool:
        return wait_for(self._writer, timeout_s)

    def send_eof(self) -> None:
        """Nothing to do: the end of the process closes the sink."""

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

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            for watcher in (self._reader, self._writer):
                watcher.stop()
                watcher.close()

    def abort(self) -> None:
        self.close()


def _ready(descriptor: int, events: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, events)  # errors and hang-ups are reported unasked
    return bool(poll.poll(0))
