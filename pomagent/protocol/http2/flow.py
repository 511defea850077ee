"""Flow control (RFC 9113 §5.2) of one stream on its own connection: how much each side may send."""

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
"""Bytes consumed before the window is returned, in 26 bytes of frames. The window stays near its maximum."""


class ReceiveWindow:
    """Bytes that the gateway may send.

    Windows are as large as possible, because an edge drops unsent bytes at the end of a stream (wire contract §7.2).
    Memory stays bounded because nothing is read before its consumer has room.
    """

    __slots__ = ("_owed", "_window")

    def __init__(self) -> None:
        self._window = MAX_WINDOW
        self._owed = 0

    def spend(self, length: int) -> None:
        """Subtract a received DATA frame, including its padding. Raises Violation."""
        self._window -= length
        if self._window < 0:
            raise Violation(Code.FLOW_CONTROL_ERROR, "more DATA than the window allows")

    def consumed(self, length: int) -> bytes:
        """Record consumed bytes, and return the frames that return the window, if they are due."""
        self._owed += length
        if self._owed < UPDATE_BYTES:
            return b""
        owed, self._owed = self._owed, 0
        self._window += owed
        return window_update(0, owed) + window_update(STREAM, owed)


class SendWindow:
    """Bytes that the gateway accepts."""

    __slots__ = ("_connection", "_frame_bytes", "_initial", "_stream")

    def __init__(self) -> None:
        self._connection = self._stream = self._initial = DEFAULT_WINDOW
        self._frame_bytes = FRAME_BYTES

    @property
    def room(self) -> int:
        """Number of DATA bytes that may be sent now."""
        return max(0, min(self._connection, self._stream))

    def claim(self, wanted: int) -> int:
        """Reserve and return the size of the next DATA frame, at most ``wanted`` bytes. 0 if the window is closed."""
        size = min(wanted, self._frame_bytes, self._connection, self._stream)
        if size <= 0:
            return 0
        self._connection -= size
        self._stream -= size
        return size

    def widen(self, stream: int, increment: int) -> None:
        """Apply a WINDOW_UPDATE. Raises Violation."""
        increment &= LOW_31_BITS
        if not increment:
            raise Violation(Code.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        if stream:
            self._stream = _within(self._stream + increment)
        else:
            self._connection = _within(self._connection + increment)

    def set_initial_window(self, size: int) -> None:
        """Apply the setting to new and open streams. An open window may become negative. Raises Violation."""
        if size > MAX_WINDOW:
            raise Violation(Code.FLOW_CONTROL_ERROR, f"an initial window of {size} bytes")
        self._stream = _within(self._stream + size - self._initial)
        self._initial = size

    def set_frame_bytes(self, size: int) -> None:
        """Apply the gateway's maximum frame size. Raises Violation."""
        if not FRAME_BYTES <= size <= MOST_FRAME_BYTES:
            raise Violation(Code.PROTOCOL_ERROR, f"frames of at most {size} bytes")
        self._frame_bytes = size


def _within(window: int) -> int:
    if window > MAX_WINDOW:
        raise Violation(Code.FLOW_CONTROL_ERROR, "a window beyond its maximum")
    return window
