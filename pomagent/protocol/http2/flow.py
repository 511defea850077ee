"""Flow control (RFC 9113 §5.2): how much each side may send, of one stream on a connection of its own."""

from __future__ import annotations

from typing import Final

from pomagent.protocol.http2.frames import (
    FRAME_BYTES,
    LOW_31_BITS,
    MOST_FRAME_BYTES,
    STREAM,
    Code,
    Violation,
    window_update,
)

MAX_WINDOW: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535
UPDATE_BYTES: Final = 16 * 1024 * 1024
"""Given back at a time: the window stays near its maximum, and it costs 26 bytes."""


class Receiving:
    """What the gateway may send. Windows are as large as can be, since an edge drops at the end of a stream what it
    could not send (wire contract §7.2); what bounds memory is that nothing is read before its taker has room.
    """

    __slots__ = ("_owed", "_window")

    def __init__(self) -> None:
        self._window = MAX_WINDOW
        self._owed = 0

    def spend(self, length: int) -> None:
        """A DATA frame has come, padding included. Raises Violation."""
        self._window -= length
        if self._window < 0:
            raise Violation(Code.FLOW_CONTROL_ERROR, "more DATA than the window allows")

    def taken(self, length: int) -> bytes:
        """The application has taken so much: the frames that give it back to the gateway, if it is time for them."""
        self._owed += length
        if self._owed < UPDATE_BYTES:
            return b""
        owed, self._owed = self._owed, 0
        self._window += owed
        return window_update(0, owed) + window_update(STREAM, owed)


class Sending:
    """What the gateway takes."""

    __slots__ = ("_connection", "_frame_bytes", "_initial", "_stream")

    def __init__(self) -> None:
        self._connection = self._stream = self._initial = DEFAULT_WINDOW
        self._frame_bytes = FRAME_BYTES

    @property
    def room(self) -> int:
        """How much DATA may be sent now."""
        return max(0, min(self._connection, self._stream))

    def claim(self, wanted: int) -> int:
        """How much of so many bytes, more than none, the next DATA frame carries; that is spent."""
        size = min(wanted, self._frame_bytes, self._connection, self._stream)
        if size <= 0:
            return 0
        self._connection -= size
        self._stream -= size
        return size

    def widen(self, stream: int, increment: int) -> None:
        """A WINDOW_UPDATE has come. Raises Violation."""
        increment &= LOW_31_BITS
        if not increment:
            raise Violation(Code.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        if stream:
            self._stream = _within(self._stream + increment)
        else:
            self._connection = _within(self._connection + increment)

    def set_initial_window(self, size: int) -> None:
        """Of streams, the one that is open included: its window may even fall below zero. Raises Violation."""
        if size > MAX_WINDOW:
            raise Violation(Code.FLOW_CONTROL_ERROR, f"an initial window of {size} bytes")
        self._stream = _within(self._stream + size - self._initial)
        self._initial = size

    def set_frame_bytes(self, size: int) -> None:
        """Raises Violation."""
        if not FRAME_BYTES <= size <= MOST_FRAME_BYTES:
            raise Violation(Code.PROTOCOL_ERROR, f"frames of at most {size} bytes")
        self._frame_bytes = size


def _within(window: int) -> int:
    if window > MAX_WINDOW:
        raise Violation(Code.FLOW_CONTROL_ERROR, "a window beyond its maximum")
    return window
