"""A tunnel over HTTP/2, in the shape of every other stream: the I/O of ``protocol.http2``."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from gevent import get_hub
from gevent.event import Event

from pomagent.errors import StreamLost
from pomagent.protocol.http2.connection import Connection
from pomagent.protocol.http2.frames import HEAD, HEAD_BYTES, STREAM
from pomagent.transport.stream import SCRATCH_BYTES, Buffer, SocketStream
from pomagent.transport.tls_over_memory import MOST_SENT_BYTES
from pomagent.transport.tls_stream import TlsStream, flush_through

PING_EVERY_S = 15.0
"""While it waits in a pool: a frozen gateway's kernel still acknowledges, which is all that keepalive asks for."""
CREDIT_BYTES = 256 * 1024
"""Read between two looks at the window, which is a thousand times as large."""
FRAMES_BYTES = MOST_SENT_BYTES
"""Sent at a time: whole frames."""


def new_frames_scratch() -> memoryview:
    """A buffer for all streams of one hub."""
    return memoryview(bytearray(FRAMES_BYTES))


class Http2Stream:
    """The one stream of an HTTP/2 connection over TLS."""

    __slots__ = ("_callback", "_handed", "_is_awaited", "_may_send", "_pinger", "_scratch", "connection", "transport")

    carries_half_close = True

    def __init__(self, transport: TlsStream, scratch: memoryview) -> None:
        """``scratch``, of FRAMES_BYTES, may be shared by all streams of the hub."""
        self.transport = transport
        self.connection = Connection()
        self._scratch = scratch
        self._handed = 0
        """What reads have returned since the gateway was told; their reader has dealt with it when it reads again."""
        self._may_send = Event()
        """Set when the gateway takes more, or never will."""
        self._is_awaited = False
        self._callback: Callable[[], None] | None = None
        self._pinger: object = None

    @property
    def sock(self) -> socket.socket:
        return self.transport.sock

    def peer_certificate(self) -> dict[str, object]:
        return self.transport.peer_certificate()

    # --- down -----------------------------------------------------------------------------------------------------

    def recv_into(self, buffer: memoryview) -> int | None:
        connection = self.connection
        if self._handed >= CREDIT_BYTES:
            connection.taken(self._handed)
            self._handed = 0
        if not connection.is_open:
            buffer = self._scratch  # a tunnel's bytes cannot come yet, and the caller's buffer may be tiny
        kept: int | None = 0
        while not kept and kept is not None and not connection.is_over:
            kept = self._receive(buffer)
        if connection.outgoing or self._is_awaited:
            self._settle()
        if not kept:
            return self._end()
        self._handed += kept
        return kept

    def _receive(self, buffer: memoryview) -> int | None:
        """Read once: how much of the tunnel that brought, None if there is nothing now."""
        try:
            count = self.transport.recv_into(buffer)
        except StreamLost as loss:
            self.connection.lost(loss)
            return 0
        if count:
            return self.connection.receive(buffer, count)
        if count is None:
            self.connection.caught_up()
            return None
        self.connection.lost(None)
        return 0

    def _end(self) -> int | None:
        """What to tell a reader for whom there is nothing: that it is over, or that more may come (None)."""
        connection = self.connection
        if connection.has_ended or (connection.is_going_away and not connection.is_open):
            return 0
        if connection.loss is not None:
            raise connection.loss
        if connection.is_going_away and self._callback is not None:
            raise StreamLost("the gateway goes away")  # a session would go on; nobody should begin one
        return None

    def _settle(self) -> None:
        """Send what the frames that came ask for, and tell who waits to send."""
        with suppress(StreamLost):  # that nobody takes it says nothing of what is still there to be read
            self._push()
        if self.connection.sending.room or self.connection.loss is not None:
            self._may_send.set()

    # --- up -------------------------------------------------------------------------------------------------------

    def send(self, data: Buffer) -> int:
        if not self._push():
            return 0
        taken, end, view = 0, 0, memoryview(data)[:SCRATCH_BYTES]
        scratch, sending = self._scratch, self.connection.sending
        while taken < len(view) and end < FRAMES_BYTES - HEAD_BYTES:
            size = sending.claim(min(len(view) - taken, FRAMES_BYTES - HEAD_BYTES - end))
            if not size:
                break
            HEAD.pack_into(scratch, end, size << 8, 0, STREAM)
            end += HEAD_BYTES
            scratch[end : end + size] = view[taken : taken + size]
            end, taken = end + size, taken + size
        if end:
            sent = self.transport.send(scratch[:end])
            if sent < end:
                self.connection.outgoing += scratch[sent:end]
                self._push()
        return taken

    def flush(self, timeout_s: float | None = None) -> bool:
        return flush_through(self._push, self.transport, self.transport, timeout_s)

    def send_eof(self) -> None:
        """End our side with END_STREAM: the destination sees the end, and its answer still comes."""
        self.connection.end()
        self._push()

    def _push(self) -> bool:
        """Hand our frames to TLS; True if nothing is left. Raises StreamLost."""
        if self.connection.loss is not None:
            raise self.connection.loss
        return self._push_frames()

    def _push_frames(self) -> bool:
        outgoing = self.connection.outgoing
        while outgoing:
            sent = self.transport.send(bytes(outgoing))  # a copy: a failed send may keep hold of what it was given
            if not sent:
                return False
            del outgoing[:sent]
        return True

    # --- waiting --------------------------------------------------------------------------------------------------

    def wait_readable(self, timeout_s: float | None = None) -> bool:
        """At once where it keeps something itself: an end, or a loss, that came with the bytes before it."""
        connection = self.connection
        is_refused = connection.is_going_away and not connection.is_open
        return connection.is_over or is_refused or self.transport.wait_readable(timeout_s)

    def wait_writable(self, timeout_s: float | None = None) -> bool:
        """Blocks until ``send`` may take something: for the window, that needs somebody who reads."""
        connection = self.connection
        if connection.outgoing or connection.sending.room or connection.loss is not None:
            return self.transport.wait_writable(timeout_s)
        self._may_send.clear()
        self._is_awaited = True
        try:
            return bool(self._may_send.wait(timeout_s))
        finally:
            self._is_awaited = False

    def has_news(self) -> bool:
        return self.transport.has_news()  # what came before has had its consequences while it was watched

    def watch(self, callback: Callable[[], None]) -> None:
        """As ``SocketStream.watch``; meanwhile the gateway is pinged, and lost when it does not answer."""
        self.unwatch()
        self._callback = callback
        self.transport.watch(callback)
        self._pinger = get_hub().loop.timer(PING_EVERY_S, PING_EVERY_S, ref=False)
        self._pinger.start(self._ping)  # type: ignore[attr-defined]  # gevent has no types
        with suppress(StreamLost):
            self._push()

    def unwatch(self) -> None:
        self.transport.unwatch()
        self._callback = None
        if self._pinger is not None:
            self._pinger.stop()  # type: ignore[attr-defined]
            self._pinger.close()  # type: ignore[attr-defined]
            self._pinger = None

    def _ping(self) -> None:
        """In the hub: look whether the last PING was answered, and send the next one."""
        if self.connection.awaits_pong and self._callback is not None:
            self._callback()  # the answer may have come a moment ago
        if self._callback is None:
            return
        if self.connection.awaits_pong:
            self.connection.lost(StreamLost(f"the gateway did not answer a PING within {PING_EVERY_S:g} s"))
            self._callback()
            return
        self.connection.ping()
        with suppress(StreamLost):
            self._push()

    # --- its end --------------------------------------------------------------------------------------------------

    def unsent_bytes(self) -> int:
        return len(self.connection.outgoing) + self.transport.unsent_bytes()

    def is_lost(self) -> bool:
        return self.transport.is_lost()

    def is_dead(self) -> bool:
        return self.transport.is_dead()

    def close(self) -> None:
        self._leave()
        self.transport.close()

    def abort(self) -> None:
        self._leave()
        self.transport.abort()

    def _leave(self) -> None:
        if self._pinger is not None:
            self.unwatch()
        self.connection.leave()
        with suppress(StreamLost):
            self._push_frames()


TunnelStream: TypeAlias = SocketStream | TlsStream | Http2Stream
"""What a tunnel may run over: clear text, TLS, HTTP/2."""
