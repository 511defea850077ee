"""Connections in memory: two ends, each with a bounded buffer, that a test reads, stalls and breaks by hand."""

from __future__ import annotations

import gevent
from gevent.event import Event

from pomagent.errors import StreamLost

Buffer = bytes | bytearray | memoryview


class FakeStream:
    """One end. ``peer`` is the other; what is sent lies in the peer's ``inbox`` until somebody receives it."""

    peer: FakeStream

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        """How much the inbox takes before the peer's ``send`` takes nothing more."""
        self.inbox = bytearray()
        self.has_ended = False
        """Whether the peer has said that nothing more comes."""
        self.loss: StreamLost | None = None
        """What is left of a reset."""
        self.refuses = False
        """Whether ``send`` fails, though what the peer has sent can still be received."""
        self.is_closed = False
        self.was_aborted = False
        self.most_held = 0
        """The most that ever lay in the inbox."""
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
        self.peer.most_held = max(self.peer.most_held, len(self.peer.inbox))
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

    # What a session asks of its client.

    has_closed_answer: bool | None = False

    def is_at_end(self) -> bool:
        return self.has_ended and not self.inbox

    def has_closed(self) -> bool | None:
        return self.has_closed_answer

    def user(self) -> int | None:
        return None

    # What a test does with its end.

    def write(self, data: bytes) -> None:
        """Send all of it. Blocks."""
        view = memoryview(data)
        while view:
            self.wait_writable()
            view = view[self.send(view) :]

    def read(self, length: int) -> bytes:
        """Exactly so many bytes, fewer only at the end. Blocks. Raises StreamLost."""
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
        """From now on this end is reset; what has arrived can still be received."""
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
    """Both ends of a new connection; each takes ``capacity`` bytes that are not received."""
    ours, theirs = FakeStream(capacity), FakeStream(capacity)
    ours.peer, theirs.peer = theirs, ours
    return ours, theirs
