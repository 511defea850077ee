"""An HTTP/2 connection with one stream, the tunnel: frames in, the tunnel's bytes and its end out (RFC 9113).

DATA is never copied into a buffer of ours: its payload stays in the buffer it was read into. Whatever a gateway sends,
memory is bounded: a frame that is not DATA by ``FRAME_BYTES``, a head by ``MAX_BLOCK_BYTES``, what it asks us to say by
``MAX_OUTGOING_BYTES``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pomagent.errors import StreamBroken, StreamLost, StreamReset
from pomagent.protocol.http2 import frames
from pomagent.protocol.http2.flow import DEFAULT_WINDOW, MAX_WINDOW, Receiving, Sending
from pomagent.protocol.http2.frames import FRAME_BYTES, STREAM, Code, Flag, Kind, Setting, Violation
from pomagent.protocol.http2.headers import MAX_BLOCK_BYTES, Head, HeadReader, connect_block
from pomagent.protocol.http2.rules import admit
from pomagent.protocol.http2.splitter import Splitter

MAX_OUTGOING_BYTES: Final = 128 * 1024
"""Answers that the gateway asks for, and does not read, behind one piece of the tunnel's bytes."""
MAX_FRUITLESS: Final = 1000
"""Frames in a row that bring nothing: a flood must not hold the hub (about a millisecond's work)."""
MAX_PROVISIONAL: Final = 16
"""Answers such as 103 before the real one; each costs an unpacking."""

_PONG: Final = b"pomagent"
_OPENING: Final = (
    frames.PREFACE
    + frames.settings({
        Setting.HEADER_TABLE_SIZE: 0,
        Setting.ENABLE_PUSH: 0,
        Setting.INITIAL_WINDOW_SIZE: MAX_WINDOW,
        Setting.MAX_HEADER_LIST_SIZE: MAX_BLOCK_BYTES,
    })
    + frames.window_update(0, MAX_WINDOW - DEFAULT_WINDOW)
)  # fmt: skip


class Connection:
    """The client's side. What it has to say stands in ``outgoing``, which its owner sends and deletes from."""

    def __init__(self) -> None:
        self.outgoing = bytearray(_OPENING)
        self.sending = Sending()
        self._receiving = Receiving()
        self._splitter = Splitter()
        self._heads = HeadReader()
        self._fruitless = self._provisional = 0
        self._knows_settings = False
        self.is_open = False
        """Whether the CONNECT was sent."""
        self.head: Head | None = None
        """The gateway's answer, without the body; None before, and for provisional ones."""
        self.has_ended = False
        """Whether the gateway has said that nothing more comes: an orderly end."""
        self.has_sent_end = False
        self.loss: StreamLost | None = None
        """Why nothing more comes, if that is not an orderly end."""
        self.is_going_away = False
        """Whether the gateway wants no new stream; one that is open may go on."""
        self.awaits_pong = False

    @property
    def is_tunnel(self) -> bool:
        return self.head is not None and 200 <= self.head.status < 300

    @property
    def is_over(self) -> bool:
        return self.has_ended or self.loss is not None

    # --- what we say ----------------------------------------------------------------------------------------------

    def open(self, destination: str, headers: Mapping[str, str]) -> None:
        """Ask for the tunnel. Raises ValueError for what a request cannot carry."""
        block = connect_block(destination, headers)
        parts = [block[at : at + FRAME_BYTES] for at in range(0, len(block), FRAME_BYTES)]
        for number, part in enumerate(parts):
            kind = Kind.CONTINUATION if number else Kind.HEADERS
            self.outgoing += frames.frame(kind, Flag.END_HEADERS if number == len(parts) - 1 else 0, STREAM, part)
        self.is_open = True
        if self.is_going_away:
            self.loss = StreamReset("the gateway goes away", Code.REFUSED_STREAM)

    def end(self) -> None:
        """Say that no more DATA follows, once."""
        if self.is_open and not self.has_sent_end and self.loss is None:
            self.has_sent_end = True
            self.outgoing += frames.frame(Kind.DATA, Flag.END_STREAM, STREAM)

    def ping(self) -> None:
        self.awaits_pong = True
        self.outgoing += frames.frame(Kind.PING, 0, 0, _PONG)

    def leave(self) -> None:
        """Say good-bye to a gateway that was not told yet why."""
        if self.is_open and self.loss is None and not (self.has_ended and self.has_sent_end):
            self.outgoing += frames.rst_stream(Code.CANCEL)
        if not isinstance(self.loss, StreamBroken):
            self.outgoing += frames.goaway(Code.NO_ERROR)

    # --- what the gateway says ------------------------------------------------------------------------------------

    def taken(self, length: int) -> None:
        """The application has taken so much of what ``receive`` returned: the gateway may send it anew."""
        self.outgoing += self._receiving.taken(length)

    def caught_up(self) -> None:
        """Everything that had arrived was received."""
        self._fruitless = 0

    def receive(self, buffer: memoryview, count: int) -> int:
        """Take what stands in the first ``count`` bytes; return how much of the tunnel stands at the front then.

        What is not the tunnel's shows in ``head``, ``has_ended``, ``loss`` and ``outgoing``.
        """
        kept = self._splitter.split(self, buffer, count)
        if kept:
            self._fruitless = 0
        return kept

    def lost(self, cause: StreamLost | None) -> None:
        """The connection below has ended: by ``cause``, or in order, which no tunnel does before its stream."""
        if not self.is_over:
            self.loss = cause or StreamLost("closed by the gateway in the middle of the tunnel")

    # --- frame by frame, for the splitter -------------------------------------------------------------------------

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
            knows_settings=self._knows_settings, is_open=self.is_open, is_amid_head=self._heads.is_amid,
        )  # fmt: skip
        if kind > Kind.CONTINUATION:
            self._splitter.skip(length)
        elif length:
            self._splitter.gather((kind, flags, stream, length), length)
        else:
            self._finish(kind, flags, stream, 0, b"")

    def _count_provisional(self) -> None:
        self._provisional += 1
        if self._provisional > MAX_PROVISIONAL:
            raise Violation(Code.ENHANCE_YOUR_CALM, f"more than {MAX_PROVISIONAL} provisional answers")

    def _count_fruitless(self) -> None:
        self._fruitless += 1
        if self._fruitless > MAX_FRUITLESS:
            raise Violation(Code.ENHANCE_YOUR_CALM, f"{MAX_FRUITLESS} frames in a row that bring nothing")

    def _begin_data(self, flags: int, stream: int, length: int) -> int:
        if stream != STREAM or self.head is None or self._heads.is_amid:
            raise Violation(Code.PROTOCOL_ERROR, f"DATA on stream {stream} that nobody asked for")
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
        """Padded, the last, or empty."""
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
        """A frame that is not DATA is complete; or of one that is, the length of its padding."""
        if kind == Kind.DATA:
            self._begin_padded(flags, length, payload[0])
        elif kind == Kind.HEADERS:
            self._begin_head(flags, payload)
        elif kind == Kind.CONTINUATION:
            self._take_head(self._heads.go_on(flags, payload))
        elif kind == Kind.SETTINGS:
            self._set(flags, payload)
        elif kind == Kind.WINDOW_UPDATE:
            self.sending.widen(stream, frames.read_long(payload))
        elif kind == Kind.PING:
            self._answer_ping(flags, payload)
        elif kind == Kind.RST_STREAM:
            self._reset(frames.read_long(payload))
        elif kind == Kind.GOAWAY:
            self._go_away(*frames.read_goaway(payload))
        elif length != 5:  # PRIORITY, which one stream has no use for
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
        self._take_head(self._heads.begin(flags, payload))

    def _take_head(self, found: tuple[Head, bool] | None) -> None:
        if found is None:
            return
        head, is_last = found
        if (head.status == 0) != (self.head is not None):
            raise Violation(Code.PROTOCOL_ERROR, "an answer without a status, or a second one")
        if head.status < 200 and is_last != (head.status == 0):
            raise Violation(Code.PROTOCOL_ERROR, "a provisional answer at the end, or trailers before it")
        if head.status >= 200:
            self.head = head
        elif head.status:
            self._count_provisional()
        self.has_ended = is_last

    # --- the connection itself ------------------------------------------------------------------------------------

    def _answer(self, frame: bytes) -> None:
        self.outgoing += frame
        if len(self.outgoing) > MAX_OUTGOING_BYTES:
            raise Violation(Code.ENHANCE_YOUR_CALM, "it asks for answers and does not read them")

    def _set(self, flags: int, payload: bytes) -> None:
        if flags & Flag.ACK:
            if payload:
                raise Violation(Code.FRAME_SIZE_ERROR, "SETTINGS that acknowledge and set")
            return
        for number, value in frames.read_settings(payload):
            if number == Setting.INITIAL_WINDOW_SIZE:
                self.sending.set_initial_window(value)
            elif number == Setting.MAX_FRAME_SIZE:
                self.sending.set_frame_bytes(value)
            elif number == Setting.ENABLE_PUSH and value:
                raise Violation(Code.PROTOCOL_ERROR, "a server that wants to be pushed to")
        self._knows_settings = True
        self._answer(frames.frame(Kind.SETTINGS, Flag.ACK, 0))

    def _answer_ping(self, flags: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise Violation(Code.FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes")
        if not flags & Flag.ACK:
            self._answer(frames.frame(Kind.PING, Flag.ACK, 0, payload))
        elif payload == _PONG:
            self.awaits_pong = False

    def _reset(self, code: int) -> None:
        if not self.has_ended:  # after the end it only says that the rest of ours interests nobody
            self.loss = StreamReset(f"reset by the gateway: {frames.code_name(code)}", code)

    def _go_away(self, last: int, code: int, said: str) -> None:
        self.is_going_away = True
        if (code != Code.NO_ERROR or (self.is_open and last < STREAM)) and not self.has_ended:
            words = f" ({said})" if said else ""
            self.loss = StreamReset(f"the gateway goes away: {frames.code_name(code)}{words}", code)
