"""What TLS over a socket and TLS through memory have in common: what is agreed on, waiting, and every kind of end."""

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
"""Until a read is tried again that must write before, or a write that must read: either is rare, and soon over."""


class TlsStream(ABC):
    """TLS over another stream: never a half-close of its socket that would garble what follows."""

    __slots__ = ("_has_ended", "_has_more", "_is_at_end", "_is_crossed", "_is_ending", "_loss", "_ssl", "transport")

    carries_half_close = False
    """Over HTTP/1.1 the gateway ends the whole tunnel with our end (wire contract §6.3)."""

    def __init__(self, transport: SocketStream | TlsStream, secured: ssl.SSLSocket | ssl.SSLObject) -> None:
        self.transport = transport
        self._ssl = secured
        self._loss: StreamLost | None = None
        """Of a read that still had something to return."""
        self._has_more = False
        """Whether the next read may have something although nothing new has arrived."""
        self._is_at_end = False
        """Whether the other side has said that nothing more comes."""
        self._has_ended = False
        """Whether we have said that nothing more comes; what still arrives interests nobody then."""
        self._is_ending = False
        """Whether that waits for the kernel to take what goes before it."""
        self._is_crossed = False
        """Whether OpenSSL wanted to write when it was to read, or the reverse: its socket tells nothing of that."""

    # --- what is agreed on ------------------------------------------------------------------------------------------

    @property
    def sock(self) -> socket.socket:
        return self.transport.sock

    def peer_certificate(self) -> dict[str, object]:
        """The gateway's certificate in Python's words; empty where it was not verified."""
        return dict(self._ssl.getpeercert() or {})

    @property
    def application_protocol(self) -> str | None:
        """What both sides agreed on by ALPN, such as ``h2``; None without an agreement."""
        return self._ssl.selected_alpn_protocol()

    @property
    def session(self) -> ssl.SSLSession | None:
        """With TLS 1.3 of use after the first read only."""
        return self._ssl.session

    @property
    def was_resumed(self) -> bool:
        """Whether the handshake was a short one, without a look at the certificate."""
        return bool(self._ssl.session_reused)

    @abstractmethod
    def handshake_step(self) -> bool:
        """Go on with the handshake as far as possible; True once it is done, else ``wait_readable`` comes first.

        Raises StreamLost, ssl.SSLError.
        """

    # --- bytes ------------------------------------------------------------------------------------------------------

    def recv_into(self, buffer: memoryview) -> int | None:
        if self._has_ended:
            self._push_or_read_on()
            return self.transport.recv_into(buffer)  # to OpenSSL, data after our close_notify is an error
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
        """As ``SocketStream.send_parts``."""
        return self.send(b"".join(parts))

    def flush(self, timeout_s: float | None = None) -> bool:
        return flush_through(self._push, self, self.transport, timeout_s)

    @abstractmethod
    def _decrypt(self, buffer: memoryview) -> int:
        """Decrypt what there is, or as much as fits: its length. An end, or a loss, behind it is kept in mind."""

    @abstractmethod
    def _push_kept(self) -> bool:
        """Hand what ``send`` has taken, and the end if that is due, to the transport; True if nothing is left."""

    def _push(self) -> bool:
        if not self._push_kept():
            return False
        if self._is_ending:
            self._is_ending = False
            self.transport.send_eof()
        return True

    def _push_or_read_on(self) -> None:
        """Hand on what is kept; that nobody takes it says nothing of what is still there to be read."""
        with suppress(StreamLost):
            self._push()

    # --- waiting ----------------------------------------------------------------------------------------------------

    def wait_readable(self, timeout_s: float | None = None) -> bool:
        return self._has_more or self._wait(self.transport.wait_readable, timeout_s)

    def wait_writable(self, timeout_s: float | None = None) -> bool:
        return self._wait(self.transport.wait_writable, timeout_s)

    def _wait(self, wait: Callable[[float | None], bool], timeout_s: float | None) -> bool:
        """Or pause, where what the transport would wait for is there at once, and to no avail. Blocks."""
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
        """Send close_notify and FIN: over HTTP/1.1 the gateway ends the whole tunnel then (wire contract §6.3).

        Behind what the kernel does not take yet, they follow with ``flush`` or ``recv_into``. What is received from now
        on is still encrypted: good for nothing but to see it end.
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
    """Push what a stream keeps until its transport has all of it, and flush that; False after the timeout."""
    if push():
        return transport.flush(timeout_s)
    deadline = None if timeout_s is None else Deadline(timeout_s)
    while not push():
        if deadline is not None and deadline.is_over:
            return False
        stream.wait_writable(deadline.remaining_s if deadline is not None else None)
    return transport.flush(deadline.remaining_s if deadline is not None else None)


def lost_tls(error: ssl.SSLError) -> StreamLost:
    if isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING":
        return StreamLost("closed without close_notify")
    alert = error.reason or ""
    return StreamLost(alert.lower().replace("_", " ") or str(error), alert if "ALERT" in alert else "")
