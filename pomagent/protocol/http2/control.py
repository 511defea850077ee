"""Frames of the connection itself: SETTINGS, PING and GOAWAY (RFC 9113 §6.5, §6.7, §6.8)."""

from __future__ import annotations

from typing import Final

from pomagent.errors import StreamReset
from pomagent.protocol.http2 import frames
from pomagent.protocol.http2.flow import DEFAULT_WINDOW, MAX_WINDOW, SendWindow
from pomagent.protocol.http2.frames import STREAM, Code, Flag, Kind, Setting, Violation
from pomagent.protocol.http2.headers import MAX_BLOCK_BYTES

MAX_OUTGOING_BYTES: Final = 128 * 1024
"""Maximum bytes of replies queued for a gateway that asks for them and does not read."""

_PONG: Final = b"pomagent"
OPENING: Final = (
    frames.PREFACE
    + frames.settings({
        Setting.HEADER_TABLE_SIZE: 0,
        Setting.ENABLE_PUSH: 0,
        Setting.INITIAL_WINDOW_SIZE: MAX_WINDOW,
        Setting.MAX_HEADER_LIST_SIZE: MAX_BLOCK_BYTES,
    })
    + frames.window_update(0, MAX_WINDOW - DEFAULT_WINDOW)
)  # fmt: skip
"""The client's first bytes on a connection."""


class ControlFrames:
    """Applies the gateway's control frames, and queues the replies in ``outgoing``."""

    __slots__ = ("_outgoing", "_send_window", "awaits_pong", "is_going_away", "knows_settings")

    def __init__(self, outgoing: bytearray, send_window: SendWindow) -> None:
        self._outgoing = outgoing
        self._send_window = send_window
        self.knows_settings = False
        self.is_going_away = False
        self.awaits_pong = False

    def send_ping(self) -> None:
        """Queue a PING, and expect its acknowledgement."""
        self.awaits_pong = True
        self._outgoing += frames.frame(Kind.PING, 0, 0, _PONG)

    def settings(self, flags: int, payload: bytes) -> None:
        """Apply and acknowledge a SETTINGS frame. Raises Violation."""
        if flags & Flag.ACK:
            if payload:
                raise Violation(Code.FRAME_SIZE_ERROR, "SETTINGS that acknowledge and set")
            return
        for number, value in frames.read_settings(payload):
            if number == Setting.INITIAL_WINDOW_SIZE:
                self._send_window.set_initial_window(value)
            elif number == Setting.MAX_FRAME_SIZE:
                self._send_window.set_frame_bytes(value)
            elif number == Setting.ENABLE_PUSH and value:
                raise Violation(Code.PROTOCOL_ERROR, "a server that enables pushes to itself")
        self.knows_settings = True
        self._reply(frames.frame(Kind.SETTINGS, Flag.ACK, 0))

    def ping(self, flags: int, payload: bytes) -> None:
        """Acknowledge a PING frame, or record the acknowledgement of ours. Raises Violation."""
        if len(payload) != 8:
            raise Violation(Code.FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes")
        if not flags & Flag.ACK:
            self._reply(frames.frame(Kind.PING, Flag.ACK, 0, payload))
        elif payload == _PONG:
            self.awaits_pong = False

    def go_away(self, payload: bytes, *, is_open: bool) -> StreamReset | None:
        """Apply a GOAWAY frame. Return the loss of the tunnel if it ends with the frame. Raises Violation."""
        last, code, debug = frames.read_goaway(payload)
        self.is_going_away = True
        if code == Code.NO_ERROR and not (is_open and last < STREAM):
            return None
        detail = f" ({debug})" if debug else ""
        return StreamReset(f"the gateway goes away: {frames.code_name(code)}{detail}", code)

    def _reply(self, frame: bytes) -> None:
        self._outgoing += frame
        if len(self._outgoing) > MAX_OUTGOING_BYTES:
            raise Violation(Code.ENHANCE_YOUR_CALM, "replies are asked for and not read")
