"""Connections in memory: two ends with bounded buffers, which a test reads, stalls and breaks."""

from __future__ import annotations

import gevent
from gevent.event import Event

from pomagent.errors import StreamLost

Buffer = bytes | bytearray | memoryview


class FakeStream:
    """One end. Sent bytes stay in the ``inbox`` of ``peer``, the other end, until it receives them."""

    peer: FakeStream

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        """Bytes in the inbox at which the peer's ``send`` accepts no more."""
        self.inbox = bytearray()
        self.has_ended = False
        """Whether the peer has ended its direction."""
        self.loss: StreamLost | None = None
        """The loss that reads and writes raise."""
        self.refuses = False
        """Whether ``send`` fails although the peer's bytes can still be received."""
        self.is_closed = False
        self.was_aborted = False
        self.max_held_bytes = 0
        """Maximum bytes ever in the inbox."""
        self._changed = Event()

    def recv_into(self, buffer: memoryview) -> int | None:
        count = min(len(buffer), len(self.inbox))
        if count:
            buffer[:count] = self.inbox[:count]
            del self.inbox[:count]
            self.peer.note()
            return count
        if self.loss is not None:
            raise self.loss
        return 0 if self.has_ended else None

    def send(self, data: Buffer) -> int:
        if self.refuses or self.loss is not None:
            self.loss = self.loss or StreamLost("broken pipe")
            raise self.loss
        room = max(0, self.peer.capacity - len(self.peer.inbox))
        taken = bytes(data[:room])
        self.peer.inbox += taken
        self.peer.max_held_bytes = max(self.peer.max_held_bytes, len(self.peer.inbox))
        self.peer.note()
        return len(taken)

    def flush(self, timeout_s: float | None = None) -> bool:
        return True

    def wait_readable(self, timeout_s: float | None = None) -> bool:
        return self._wait(lambda: bool(self.inbox) or self.has_ended or self.loss is not None, timeout_s)

    def wait_writable(self, timeout_s: float | None = None) -> bool:
        return self._wait(
            lambda: len(self.peer.inbox) < self.peer.capacity or self.refuses or self.loss is not None, timeout_s
        )

    def send_eof(self) -> None:
        self.peer.has_ended = True
        self.peer.note()

    def unsent_bytes(self) -> int:
        return len(self.peer.inbox)

    def is_lost(self) -> bool:
        return self.loss is not None

    def is_dead(self) -> bool:
        return False

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.send_eof()

    def abort(self) -> None:
        if not self.is_closed:
            self.is_closed = self.was_aborted = True
            self.peer.lose()

    # Methods that a session's client has.

    has_closed_answer: bool | None = False

    def is_at_end(self) -> bool:
        return self.has_ended and not self.inbox

    def has_closed(self) -> bool | None:
        return self.has_closed_answer

    def user(self) -> int | None:
        return None

    # Methods for the test.

    def write(self, data: bytes) -> None:
        """Send all bytes. Blocks."""
        view = memoryview(data)
        while view:
            self.wait_writable()
            view = view[self.send(view) :]

    def read(self, length: int) -> bytes:
        """Receive ``length`` bytes, fewer only at the end. Blocks. Raises StreamLost."""
        data, buffer = bytearray(), memoryview(bytearray(65536))
        while len(data) < length:
            count = self.recv_into(buffer[: length - len(data)])
            if count == 0:
                break
            if count is None:
                self.wait_readable()
            else:
                data += buffer[:count]
        return bytes(data)

    def read_to_end(self) -> bytes:
        return self.read(1 << 40)

    def lose(self, cause: str = "connection reset by peer") -> None:
        """Reset this end. Bytes that have arrived can still be received."""
        self.loss = StreamLost(cause)
        self.note()

    def note(self) -> None:
        self._changed.set()

    def _wait(self, condition, timeout_s: float | None) -> bool:  # type: ignore[no-untyped-def]
        with gevent.Timeout(timeout_s, False):
            while not condition():
                self._changed.clear()
                self._changed.wait()
        return bool(condition())


def stream_pair(capacity: int = 64 * 1024) -> tuple[FakeStream, FakeStream]:
    """Return both ends of a new connection. Each holds up to ``capacity`` unreceived bytes."""
    ours, theirs = FakeStream(capacity), FakeStream(capacity)
    ours.peer, theirs.peer = theirs, ours
    return ours, theirs
