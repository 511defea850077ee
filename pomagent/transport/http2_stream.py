"""A tunnel over HTTP/2 as a ``Stream``: the I/O of ``protocol.http2``."""

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
"""Seconds between two PINGs on a warm tunnel. Keepalive misses a frozen gateway, because its kernel still ACKs."""
CREDIT_BYTES = 256 * 1024
"""Bytes read before the flow-control window is updated. The window is a thousand times as large."""
FRAMES_BYTES = MOST_SENT_BYTES
"""Maximum bytes of whole frames sent at a time."""


def new_frames_scratch() -> memoryview:
    """Return a buffer that all streams of one hub may share."""
    return memoryview(bytearray(FRAMES_BYTES))


class Http2Stream:
    """The one stream of an HTTP/2 connection over TLS."""

    __slots__ = (
        "_callback", "_is_awaited", "_may_send", "_pinger", "_scratch", "_uncredited", "connection", "transport",
    )  # fmt: skip

    carries_half_close = True

    def __init__(self, transport: TlsStream, scratch: memoryview) -> None:
        """``scratch`` has FRAMES_BYTES and may be shared by all streams of the hub."""
        self.transport = transport
        self.connection = Connection()
        self._scratch = scratch
        self._uncredited = 0
        """Bytes that reads have returned and the window does not count as consumed yet. The next read consumes them."""
        self._may_send = Event()
        """Set when the window has room, or never will."""
        self._is_awaited = False
        """Whether a greenlet waits for ``_may_send``."""
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
        if self._uncredited >= CREDIT_BYTES:
            connection.taken(self._uncredited)
            self._uncredited = 0
        if not connection.is_open:
            buffer = self._scratch  # no bytes of the tunnel can come yet, and the caller's buffer may be tiny
        kept: int | None = 0
        while not kept and kept is not None and not connection.is_over:
            kept = self._receive(buffer)
        if connection.outgoing or self._is_awaited:
            self._settle()
        if not kept:
            return self._end()
        self._uncredited += kept
        return kept

    def _receive(self, buffer: memoryview) -> int | None:
        """Read once and return how many bytes of the tunnel came, None if there is nothing to read now."""
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
        """Return 0 at the end, None if more may come. Raises StreamLost."""
        connection = self.connection
        if connection.has_ended or (connection.is_going_away and not connection.is_open):
            return 0
        if connection.loss is not None:
            raise connection.loss
        if connection.is_going_away and self._callback is not None:
            raise StreamLost("the gateway goes away")  # only while warm: a running session goes on
        return None

    def _settle(self) -> None:
        """Send the answers to received frames, and wake the greenlet that waits to send."""
        with suppress(StreamLost):  # received bytes can still be read
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
        """End this side with END_STREAM. The destination sees the end, and its answer still arrives."""
        self.connection.end()
        self._push()

    def _push(self) -> bool:
        """Pass pending frames to TLS, or return True if none is left. Raises StreamLost."""
        if self.connection.loss is not None:
            raise self.connection.loss
        return self._push_frames()

    def _push_frames(self) -> bool:
        outgoing = self.connection.outgoing
        while outgoing:
            sent = self.transport.send(bytes(outgoing))  # a copy: a failed send may keep a view of its argument
            if not sent:
                return False
            del outgoing[:sent]
        return True

    # --- waiting --------------------------------------------------------------------------------------------------

    def wait_readable(self, timeout_s: float | None = None) -> bool:
        """Wait until ``recv_into`` may return something, such as an end that came with earlier bytes. Blocks."""
        connection = self.connection
        is_refused = connection.is_going_away and not connection.is_open
        return connection.is_over or is_refused or self.transport.wait_readable(timeout_s)

    def wait_writable(self, timeout_s: float | None = None) -> bool:
        """Wait until ``send`` may accept something. Blocks. Window updates need another greenlet that reads."""
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
        return self.transport.has_news()  # earlier news was handled while the stream was watched

    def watch(self, callback: Callable[[], None]) -> None:
        """Watch like ``SocketStream.watch``, and ping the gateway. The stream is lost when no answer comes."""
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
        """Check whether the last PING was answered, and send the next one. Runs in the hub."""
        if self.connection.awaits_pong and self._callback is not None:
            self._callback()  # reads an answer that may just have arrived
        if self._callback is None:
            return
        if self.connection.awaits_pong:
            self.connection.lost(StreamLost(f"the gateway did not answer a PING within {PING_EVERY_S:g} s"))
            self._callback()
            return
        self.connection.ping()
        with suppress(StreamLost):
            self._push()

    # --- end ------------------------------------------------------------------------------------------------------

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
"""The transports of a tunnel: clear text, TLS, HTTP/2."""
