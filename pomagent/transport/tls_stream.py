"""What TLS over a socket and TLS through memory share: negotiated facts, waiting, and every kind of end."""

from __future__ import annotations

import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress

import gevent

from pomagent.errors import StreamLost
from pomagent.runtime.deadline import Deadline
from pomagent.transport.stream import Buffer, SocketStream, Stream

CROSSED_PAUSE_S = 0.01
"""Seconds before a read is retried that must write first, or a write that must read first. Both are rare and short."""


class TlsStream(ABC):
    """TLS over another stream. Its socket is shut down only behind close_notify, since later reads are ciphertext."""

    __slots__ = ("_has_ended", "_has_more", "_is_at_end", "_is_crossed", "_is_ending", "_loss", "_ssl", "transport")

    carries_half_close = False
    """Over HTTP/1.1 the gateway ends the whole tunnel when this side ends (wire contract §6.3)."""

    def __init__(self, transport: SocketStream | TlsStream, secured: ssl.SSLSocket | ssl.SSLObject) -> None:
        self.transport = transport
        self._ssl = secured
        self._loss: StreamLost | None = None
        """A loss that followed bytes which a read returned. The next read raises it."""
        self._has_more = False
        """Whether the next read may return something although nothing new has arrived."""
        self._is_at_end = False
        """Whether the peer has ended its direction."""
        self._has_ended = False
        """Whether this side has ended its direction. What still arrives is discarded then."""
        self._is_ending = False
        """Whether this side's end waits for the kernel to accept the bytes before it."""
        self._is_crossed = False
        """Whether OpenSSL must write before it can read, or the reverse. Polling the socket cannot show that."""

    # --- negotiated facts -------------------------------------------------------------------------------------------

    @property
    def sock(self) -> socket.socket:
        return self.transport.sock

    def peer_certificate(self) -> dict[str, object]:
        """Return the gateway's certificate as ``getpeercert`` does, or empty if it was not verified."""
        return dict(self._ssl.getpeercert() or {})

    @property
    def application_protocol(self) -> str | None:
        """The protocol negotiated by ALPN, such as ``h2``, or None without one."""
        return self._ssl.selected_alpn_protocol()

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session to resume later. With TLS 1.3 it is usable only after the first read."""
        return self._ssl.session

    @property
    def was_resumed(self) -> bool:
        """Whether the handshake resumed a session, and so verified no certificate."""
        return bool(self._ssl.session_reused)

    @abstractmethod
    def handshake_step(self) -> bool:
        """Continue the handshake. Return True once it is complete, False if ``wait_readable`` must come first.

        Does not block. Raises StreamLost, ssl.SSLError.
        """

    # --- bytes ------------------------------------------------------------------------------------------------------

    def recv_into(self, buffer: memoryview) -> int | None:
        if self._has_ended:
            self._push_quietly()
            return self.transport.recv_into(buffer)  # OpenSSL fails on data that follows its own close_notify
        if self._loss is not None:
            raise self._loss
        if self._is_at_end:
            return 0
        total = self._decrypt(buffer)
        self._has_more = total == len(buffer) or self._is_at_end or self._loss is not None
        if total:
            return total
        if self._loss is not None:
            raise self._loss
        return 0 if self._is_at_end else None

    @abstractmethod
    def send(self, data: Buffer) -> int: ...

    def send_parts(self, parts: Sequence[bytes]) -> int:
        """Accept several buffers in order, like ``send``."""
        return self.send(b"".join(parts))

    def flush(self, timeout_s: float | None = None) -> bool:
        return flush_through(self._push, self, self.transport, timeout_s)

    @abstractmethod
    def _decrypt(self, buffer: memoryview) -> int:
        """Decrypt as much as is available and fits and return its length. Records an end or a loss that follows."""

    @abstractmethod
    def _push_kept(self) -> bool:
        """Pass accepted bytes, then a pending end, to the transport, or return True if nothing is left."""

    def _push(self) -> bool:
        if not self._push_kept():
            return False
        if self._is_ending:
            self._is_ending = False
            self.transport.send_eof()
        return True

    def _push_quietly(self) -> None:
        """Push, and ignore a loss: received bytes can still be read."""
        with suppress(StreamLost):
            self._push()

    # --- waiting ----------------------------------------------------------------------------------------------------

    def wait_readable(self, timeout_s: float | None = None) -> bool:
        return self._has_more or self._wait(self.transport.wait_readable, timeout_s)

    def wait_writable(self, timeout_s: float | None = None) -> bool:
        return self._wait(self.transport.wait_writable, timeout_s)

    def _wait(self, wait: Callable[[float | None], bool], timeout_s: float | None) -> bool:
        """Wait, or pause where the transport would be ready at once without helping OpenSSL. Blocks."""
        if not self._is_crossed:
            return wait(timeout_s)
        if timeout_s is not None and timeout_s < CROSSED_PAUSE_S:
            gevent.sleep(timeout_s)
            return False
        self._is_crossed = False
        gevent.sleep(CROSSED_PAUSE_S)
        return True

    def has_news(self) -> bool:
        return self._has_more or self.transport.has_news()

    def watch(self, callback: object) -> None:
        self.transport.watch(callback)

    def unwatch(self) -> None:
        self.transport.unwatch()

    # --- ends -------------------------------------------------------------------------------------------------------

    def send_eof(self) -> None:
        """Send close_notify and FIN, after which an HTTP/1.1 gateway ends the whole tunnel (wire contract §6.3).

        If the kernel has not accepted the bytes before them yet, they follow with ``flush`` or ``recv_into``. From now
        on ``recv_into`` returns ciphertext, which only shows when the peer ends.
        """
        self._has_ended = self._is_ending = True
        self._has_more = False
        self._push()

    @abstractmethod
    def unsent_bytes(self) -> int: ...

    def is_lost(self) -> bool:
        return self.transport.is_lost()

    def is_dead(self) -> bool:
        return self.transport.is_dead()

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()


def flush_through(
    push: Callable[[], bool], stream: Stream, transport: SocketStream | TlsStream, timeout_s: float | None
) -> bool:
    """Push a stream's bytes until its transport has all of them, then flush it, or return False after the timeout.

    Blocks. Raises StreamLost.
    """
    if push():
        return transport.flush(timeout_s)
    deadline = None if timeout_s is None else Deadline(timeout_s)
    while not push():
        if deadline is not None and deadline.is_over:
            return False
        stream.wait_writable(deadline.remaining_s if deadline is not None else None)
    return transport.flush(deadline.remaining_s if deadline is not None else None)


def lost_tls(error: ssl.SSLError) -> StreamLost:
    """Return the StreamLost that describes a failure of TLS."""
    if isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING":
        return StreamLost("closed without close_notify")
    alert = error.reason or ""
    return StreamLost(alert.lower().replace("_", " ") or str(error), alert if "ALERT" in alert else "")
