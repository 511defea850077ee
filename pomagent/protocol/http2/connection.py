"""An HTTP/2 connection with one stream, the tunnel: frames in, the tunnel's bytes and its end out (RFC 9113).

DATA payloads are never copied: they stay in the buffer they were read into. Memory is bounded whatever a gateway sends:
other frames by ``FRAME_BYTES``, heads by ``MAX_BLOCK_BYTES``, replies by ``MAX_OUTGOING_BYTES``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pomagent.errors import StreamBroken, StreamLost, StreamReset
from pomagent.protocol.http2 import frames
from pomagent.protocol.http2.control import OPENING, ControlFrames
from pomagent.protocol.http2.flow import ReceiveWindow, SendWindow
from pomagent.protocol.http2.frames import FRAME_BYTES, STREAM, Code, Flag, Kind, Violation
from pomagent.protocol.http2.headers import Head, HeadReader, connect_frames
from pomagent.protocol.http2.rules import admit, admit_head
from pomagent.protocol.http2.splitter import Splitter

MAX_FRUITLESS: Final = 1000
"""Maximum frames in a row that carry nothing (about a millisecond's work): a flood must not occupy the hub."""
MAX_PROVISIONAL: Final = 16
"""Maximum provisional answers, such as 103. Each one must be unpacked."""


class Connection:
    """The client's side. It queues bytes in ``outgoing``, which the owner sends and deletes."""

    def __init__(self) -> None:
        self.outgoing = bytearray(OPENING)
        self.sending = SendWindow()
        self._receiving = ReceiveWindow()
        self._control = ControlFrames(self.outgoing, self.sending)
        self._splitter = Splitter()
        self._heads = HeadReader()
        self._fruitless = self._provisional = 0
        self.is_open = False
        """Whether the CONNECT was sent."""
        self.head: Head | None = None
        """The gateway's final answer without its body. None before it."""
        self.has_ended = False
        """Whether the gateway has ended the stream in order."""
        self.has_sent_end = False
        self.loss: StreamLost | None = None
        """Why the stream ended without an orderly end. None if it did not."""

    @property
    def is_tunnel(self) -> bool:
        return self.head is not None and 200 <= self.head.status < 300

    @property
    def is_over(self) -> bool:
        return self.has_ended or self.loss is not None

    @property
    def is_going_away(self) -> bool:
        """Whether the gateway accepts no new stream. An open one may continue."""
        return self._control.is_going_away

    @property
    def awaits_pong(self) -> bool:
        """Whether the gateway has not acknowledged the last PING."""
        return self._control.awaits_pong

    # --- from client to gateway -----------------------------------------------------------------------------------

    def open(self, destination: str, headers: Mapping[str, str]) -> None:
        """Request the tunnel. Raises ValueError for headers that a request cannot carry."""
        self.outgoing += connect_frames(destination, headers)
        self.is_open = True
        if self.is_going_away:
            self.loss = StreamReset("the gateway goes away", Code.REFUSED_STREAM)

    def end(self) -> None:
        """End the stream from the client's side. Further calls have no effect."""
        if self.is_open and not self.has_sent_end and self.loss is None:
            self.has_sent_end = True
            self.outgoing += frames.frame(Kind.DATA, Flag.END_STREAM, STREAM)

    def ping(self) -> None:
        """Queue a PING, and expect its acknowledgement."""
        self._control.send_ping()

    def leave(self) -> None:
        """Queue RST_STREAM and GOAWAY, unless the gateway has already got a reason."""
        if self.is_open and self.loss is None and not (self.has_ended and self.has_sent_end):
            self.outgoing += frames.rst_stream(Code.CANCEL)
        if not isinstance(self.loss, StreamBroken):
            self.outgoing += frames.goaway(Code.NO_ERROR)

    # --- from gateway to client -----------------------------------------------------------------------------------

    def taken(self, length: int) -> None:
        """Return window for bytes that ``receive`` returned and the application has consumed."""
        self.outgoing += self._receiving.consumed(length)

    def caught_up(self) -> None:
        """Restart the count of fruitless frames, when nothing more is readable."""
        self._fruitless = 0

    def receive(self, buffer: memoryview, count: int) -> int:
        """Process the first ``count`` bytes, and return how many of the tunnel's bytes now lead the buffer.

        Everything else shows in ``head``, ``has_ended``, ``loss`` and ``outgoing``.
        """
        kept = self._splitter.split(self, buffer, count)
        if kept:
            self._fruitless = 0
        return kept

    def lost(self, cause: StreamLost | None) -> None:
        """Record the end of the transport. Without a ``cause`` it closed in order, but before the stream."""
        if not self.is_over:
            self.loss = cause or StreamLost("closed by the gateway in the middle of the tunnel")

    # --- calls of the splitter ------------------------------------------------------------------------------------

    def begin_data(self, flags: int, stream: int, length: int) -> int:
        try:
            return self._begin_data(flags, stream, length)
        except Violation as violation:
            self._break(violation)
            return 0

    def begin(self, kind: int, flags: int, stream: int, length: int) -> None:
        try:
            self._begin_other(kind, flags, stream, length)
        except Violation as violation:
            self._break(violation)

    def finish(self, kind: int, flags: int, stream: int, length: int, payload: bytes) -> None:
        try:
            self._finish(kind, flags, stream, length, payload)
        except Violation as violation:
            self._break(violation)

    def ended(self) -> None:
        self.has_ended = True

    def _break(self, violation: Violation) -> None:
        self.loss = StreamBroken(str(violation), violation.code.name)
        self.outgoing += frames.goaway(violation.code, str(violation))

    def _begin_other(self, kind: int, flags: int, stream: int, length: int) -> None:
        self._count_fruitless()
        admit(
            kind, flags, stream, length,
            knows_settings=self._control.knows_settings, is_open=self.is_open, is_amid_head=self._heads.is_amid,
        )  # fmt: skip
        if kind > Kind.CONTINUATION:
            self._splitter.skip(length)
        elif length:
            self._splitter.gather((kind, flags, stream, length), length)
        else:
            self._finish(kind, flags, stream, 0, b"")

    def _count_fruitless(self) -> None:
        self._fruitless += 1
        if self._fruitless > MAX_FRUITLESS:
            raise Violation(Code.ENHANCE_YOUR_CALM, f"{MAX_FRUITLESS} frames in a row that bring nothing")

    def _begin_data(self, flags: int, stream: int, length: int) -> int:
        if stream != STREAM or self.head is None or self._heads.is_amid:
            raise Violation(Code.PROTOCOL_ERROR, f"unexpected DATA on stream {stream}")
        if self.has_ended:
            raise Violation(Code.STREAM_CLOSED, "DATA after the end")
        if length > FRAME_BYTES:
            raise Violation(Code.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        self._receiving.spend(length)
        if flags or not length:
            self._begin_special_data(flags, stream, length)
            return 0
        return length

    def _begin_special_data(self, flags: int, stream: int, length: int) -> None:
        """Begin a DATA frame that is padded, empty or the last."""
        if flags & Flag.PADDED:
            if not length:
                raise Violation(Code.PROTOCOL_ERROR, "padding without a length")
            self._splitter.gather((Kind.DATA, flags, stream, length), 1)
            return
        is_last = bool(flags & Flag.END_STREAM)
        if length:
            self._splitter.pass_on(length, 0, is_last=is_last)
        elif is_last:
            self.ended()
        else:
            self._count_fruitless()

    def _finish(self, kind: int, flags: int, stream: int, length: int, payload: bytes) -> None:
        """Process a gathered payload: a whole frame other than DATA, or a DATA frame's padding length."""
        if kind == Kind.DATA:
            self._begin_padded(flags, length, payload[0])
        elif kind == Kind.HEADERS:
            self._begin_head(flags, payload)
        elif kind == Kind.CONTINUATION:
            self._finish_head(self._heads.go_on(flags, payload))
        elif kind == Kind.SETTINGS:
            self._control.settings(flags, payload)
        elif kind == Kind.WINDOW_UPDATE:
            self.sending.widen(stream, frames.read_long(payload))
        elif kind == Kind.PING:
            self._control.ping(flags, payload)
        elif kind == Kind.RST_STREAM:
            self._reset(frames.read_long(payload))
        elif kind == Kind.GOAWAY:
            self._go_away(payload)
        elif length != 5:  # PRIORITY has no effect on a single stream
            raise Violation(Code.FRAME_SIZE_ERROR, f"PRIORITY of {length} bytes")

    def _begin_padded(self, flags: int, length: int, padding: int) -> None:
        if padding >= length:
            raise Violation(Code.PROTOCOL_ERROR, "more padding than payload")
        if length > 1:
            self._splitter.pass_on(length - 1 - padding, padding, is_last=bool(flags & Flag.END_STREAM))
        elif flags & Flag.END_STREAM:
            self.ended()
        self.taken(1 + padding)
        if padding == length - 1:
            self._count_fruitless()

    def _begin_head(self, flags: int, payload: bytes) -> None:
        if self.has_ended:
            raise Violation(Code.STREAM_CLOSED, "a head after the end")
        if self.is_tunnel:
            raise Violation(Code.PROTOCOL_ERROR, "a head in the middle of the tunnel")  # RFC 9113 §8.5
        self._finish_head(self._heads.begin(flags, payload))

    def _finish_head(self, found: tuple[Head, bool] | None) -> None:
        if found is None:
            return
        head, is_last = found
        admit_head(head.status, is_last=is_last, has_answer=self.head is not None)
        if head.status >= 200:
            self.head = head
        elif head.status:
            self._provisional += 1
            if self._provisional > MAX_PROVISIONAL:
                raise Violation(Code.ENHANCE_YOUR_CALM, f"more than {MAX_PROVISIONAL} provisional answers")
        self.has_ended = is_last

    def _reset(self, code: int) -> None:
        if not self.has_ended:  # after the end, a reset only rejects the client's remaining bytes
            self.loss = StreamReset(f"reset by the gateway: {frames.code_name(code)}", code)

    def _go_away(self, payload: bytes) -> None:
        loss = self._control.go_away(payload, is_open=self.is_open)
        if loss is not None and not self.has_ended:
            self.loss = loss
