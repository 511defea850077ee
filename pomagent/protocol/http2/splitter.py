"""Splits received bytes into frames. The tunnel's bytes stay in the buffer they were read into."""

from __future__ import annotations

from typing import Protocol

from pomagent.errors import StreamLost
from pomagent.protocol.http2.frames import HEAD, HEAD_BYTES, LOW_31_BITS


class FrameHandler(Protocol):
    """Interprets frames: ``connection.Connection``."""

    loss: StreamLost | None
    """Set when all further bytes are to be ignored."""

    def begin_data(self, flags: int, stream: int, length: int) -> int:
        """Process the header of a DATA frame. Return how many of the next bytes are the tunnel's.

        For a frame that is padded or the last, call ``gather`` or ``pass_on`` instead.
        """

    def begin(self, kind: int, flags: int, stream: int, length: int) -> None:
        """Process the header of another frame. Call ``skip`` or ``gather``, or neither for an empty frame."""

    def finish(self, kind: int, flags: int, stream: int, length: int, payload: bytes) -> None:
        """Process the gathered part of a frame."""

    def ended(self) -> None:
        """The last byte of the tunnel has arrived."""


class Splitter:
    """The position in the sequence of frames."""

    __slots__ = ("_frame", "_is_last", "_left", "_need", "_partial", "_skip")

    def __init__(self) -> None:
        self._left = self._skip = 0
        """Remaining bytes of the present frame: the tunnel's, and after them those to skip."""
        self._is_last = False
        """Whether the present frame is the tunnel's last."""
        self._partial = bytearray()
        """The first of ``_need`` bytes of a frame's header, or of a payload to gather."""
        self._need = HEAD_BYTES
        self._frame: tuple[int, int, int, int] | None = None
        """The frame to gather: kind, flags, stream, length."""

    def pass_on(self, length: int, padding: int, *, is_last: bool) -> None:
        """Treat the next ``length`` bytes as the tunnel's, and skip ``padding`` bytes after them. One is above 0."""
        self._left, self._skip, self._is_last = length, padding, is_last

    def skip(self, length: int) -> None:
        """Ignore the next ``length`` bytes."""
        self._skip = length

    def gather(self, frame: tuple[int, int, int, int], length: int) -> None:
        """Collect the next ``length`` bytes, at least one, for the handler."""
        self._frame, self._need = frame, length

    def split(self, handler: FrameHandler, buffer: memoryview, count: int) -> int:
        """Process the first ``count`` bytes. Return how many of the tunnel's bytes were moved to the front."""
        at = kept = 0
        while at < count and handler.loss is None:
            if left := self._left:
                size = left if left < count - at else count - at  # twice as fast as min()
                if at != kept:
                    buffer[kept : kept + size] = buffer[at : at + size]
                at += size
                kept += size
                self._left = left - size
                if self._is_last:
                    self._note_end(handler)
            elif self._skip:
                size = min(self._skip, count - at)
                at, self._skip = at + size, self._skip - size
                self._note_end(handler)
            elif self._frame is None and not self._partial and count - at >= HEAD_BYTES:
                word, flags, stream = HEAD.unpack_from(buffer, at)
                at += HEAD_BYTES
                self._begin(handler, word, flags, stream)
            else:
                at += self._gather(handler, buffer[at:count])
        return kept

    def _begin(self, handler: FrameHandler, word: int, flags: int, stream: int) -> None:
        kind = word & 0xFF
        if kind:
            handler.begin(kind, flags, stream & LOW_31_BITS, word >> 8)
        elif left := handler.begin_data(flags, stream & LOW_31_BITS, word >> 8):
            self._left = left

    def _note_end(self, handler: FrameHandler) -> None:
        if self._is_last and not self._left and not self._skip:
            self._is_last = False
            handler.ended()

    def _gather(self, handler: FrameHandler, view: memoryview) -> int:
        part = view[: self._need - len(self._partial)]
        self._partial += part
        if len(self._partial) == self._need:
            whole, self._partial, self._need = bytes(self._partial), bytearray(), HEAD_BYTES
            if self._frame is None:
                self._begin(handler, *HEAD.unpack(whole))
            else:
                frame, self._frame = self._frame, None
                handler.finish(*frame, whole)
        return len(part)
