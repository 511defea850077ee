"""Splits what arrives into frames: the tunnel's bytes stay in the buffer they were read into, the rest is gathered."""

from __future__ import annotations

from typing import Protocol

from pomagent.errors import StreamLost
from pomagent.protocol.http2.frames import HEAD, HEAD_BYTES, LOW_31_BITS


class Judge(Protocol):
    """Whoever knows what frames mean: ``connection.Connection``."""

    loss: StreamLost | None
    """Why nothing that follows means anything any more."""

    def begin_data(self, flags: int, stream: int, length: int) -> int:
        """The head of a DATA frame has come; return how many bytes that come next are the tunnel's.

        Of a frame that is padded, or the last, it calls ``gather`` or ``pass_on`` instead.
        """

    def begin(self, kind: int, flags: int, stream: int, length: int) -> None:
        """The head of another frame has come: calls ``skip`` or ``gather``, or neither for an empty frame."""

    def finish(self, kind: int, flags: int, stream: int, length: int, payload: bytes) -> None:
        """What was to be gathered of a frame has come."""

    def ended(self) -> None:
        """The last byte of the tunnel has come."""


class Splitter:
    """Where in the stream of frames we are."""

    __slots__ = ("_frame", "_is_last", "_left", "_need", "_partial", "_skip")

    def __init__(self) -> None:
        self._left = self._skip = 0
        """Of the present frame: what is the tunnel's, and what follows that and is nobody's."""
        self._is_last = False
        """Whether the present frame is the tunnel's last."""
        self._partial = bytearray()
        """Of a frame's head, or of a payload that is gathered: its first ``_need`` bytes."""
        self._need = HEAD_BYTES
        self._frame: tuple[int, int, int, int] | None = None
        """The frame that is gathered: kind, flags, stream, length."""

    def pass_on(self, length: int, padding: int, *, is_last: bool) -> None:
        """So many bytes that come next are the tunnel's, and so many after them nobody's: at least one."""
        self._left, self._skip, self._is_last = length, padding, is_last

    def skip(self, length: int) -> None:
        self._skip = length

    def gather(self, frame: tuple[int, int, int, int], length: int) -> None:
        """So many bytes, at least one, that come next are for the judge."""
        self._frame, self._need = frame, length

    def split(self, judge: Judge, buffer: memoryview, count: int) -> int:
        """Take the first ``count`` bytes of the buffer; return how much of the tunnel has been moved to its front."""
        at = kept = 0
        while at < count and judge.loss is None:
            if left := self._left:
                size = left if left < count - at else count - at  # twice as fast as min()
                if at != kept:
                    buffer[kept : kept + size] = buffer[at : at + size]
                at += size
                kept += size
                self._left = left - size
                if self._is_last:
                    self._note_end(judge)
            elif self._skip:
                size = min(self._skip, count - at)
                at, self._skip = at + size, self._skip - size
                self._note_end(judge)
            elif self._frame is None and not self._partial and count - at >= HEAD_BYTES:
                word, flags, stream = HEAD.unpack_from(buffer, at)
                at += HEAD_BYTES
                self._begin(judge, word, flags, stream)
            else:
                at += self._gather(judge, buffer[at:count])
        return kept

    def _begin(self, judge: Judge, word: int, flags: int, stream: int) -> None:
        kind = word & 0xFF
        if kind:
            judge.begin(kind, flags, stream & LOW_31_BITS, word >> 8)
        elif left := judge.begin_data(flags, stream & LOW_31_BITS, word >> 8):
            self._left = left

    def _note_end(self, judge: Judge) -> None:
        if self._is_last and not self._left and not self._skip:
            self._is_last = False
            judge.ended()

    def _gather(self, judge: Judge, view: memoryview) -> int:
        part = view[: self._need - len(self._partial)]
        self._partial += part
        if len(self._partial) == self._need:
            whole, self._partial, self._need = bytes(self._partial), bytearray(), HEAD_BYTES
            if self._frame is None:
                self._begin(judge, *HEAD.unpack(whole))
            else:
                frame, self._frame = self._frame, None
                judge.finish(*frame, whole)
        return len(part)
