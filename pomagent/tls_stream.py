"""TLS over a socket, through memory: few system calls per record, and no half-close that garbles what follows."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress

from pomagent.deadline import Deadline
from pomagent.errors import StreamLost
from pomagent.stream import SCRATCH_BYTES, Buffer, SocketStream

MOST_SENT_BYTES = SCRATCH_BYTES + 4096
"""Taken at a time: one piece of a client's bytes, with the heads of the frames that may carry it."""

PART_BYTES = 32 * 1024
"""Of ciphertext that OpenSSL gets, or is relieved of, at a time: a ``MemoryBIO`` never shrinks, however idle. Half as
much costs a quarter more processor time (measured)."""


class TlsStream:
    """TLS over a ``SocketStream``, through memory: never a half-close of the socket that would garble what follows."""

    __slots__ = (
        "_has_ended",
        "_has_more",
        "_incoming",
        "_is_at_end",
        "_is_ending",
        "_loss",
        "_outgoing",
        "_scratch",
        "_ssl",
        "_unsent",
        "transport",
    )

    carries_half_close = False
    """Over HTTP/1.1 the gateway ends the whole tunnel with our end (wire contract §6.3)."""

    def __init__(
        self, transport: SocketStream | TlsStream, context: ssl.SSLContext, server_name: str, scratch: memoryview,
        session: ssl.SSLSession | None = None,
    ) -> None:  # fmt: skip
        """``scratch`` may be shared by all streams of the hub but a ``transport`` of this one.

        ``session`` is offered for a short handshake; it must be of the same context and name.
        """
        self.transport = transport
        self._scratch = scratch
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name, session=session)
        self._unsent: memoryview | None = None
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

    def handshake_step(self) -> bool:
        """Go on with the handshake as far as possible; True once it is done. Raises StreamLost, ssl.SSLError."""
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                self._push_or_read_on()
                if self._feed() is None:
                    return False
            except ssl.SSLError:
                self._push_or_read_on()  # the alert that tells the gateway why we turn away
                raise
            else:
                self._push_or_read_on()
                self._has_more = True  # what came with the gateway's last words, such as tickets
                return True

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
        if self._outgoing.pending:
            self._push_or_read_on()  # answers of the TLS layer itself, such as a key update
        if total:
            return total
        if self._loss is not None:
            raise self._loss
        return 0 if self._is_at_end else None

    def send(self, data: Buffer) -> int:
        if not self._push():
            return 0
        view = memoryview(data)
        parts, taken, length = [], 0, min(len(view), MOST_SENT_BYTES)
        write, outgoing = self._ssl.write, self._outgoing
        try:
            while taken < length:
                taken += write(view[taken : min(taken + PART_BYTES, length)])
                parts.append(outgoing.read())
        except ssl.SSLError as error:
            raise lost_tls(error) from error
        if parts:
            sent = self.transport.send_parts(parts)
            if sent < sum(map(len, parts)):
                self._unsent = memoryview(b"".join(parts))[sent:]
        return taken

    def send_parts(self, parts: Sequence[bytes]) -> int:
        """As ``SocketStream.send_parts``."""
        return self.send(b"".join(parts))

    def flush(self, timeout_s: float | None = None) -> bool:
        return flush_through(self._push, self.transport, timeout_s)

    def wait_readable(self, timeout_s: float | None = None) -> bool:
        return self._has_more or self.transport.wait_readable(timeout_s)

    def wait_writable(self, timeout_s: float | None = None) -> bool:
        return self.transport.wait_writable(timeout_s)

    def has_news(self) -> bool:
        return self._has_more or self.transport.has_news()

    def watch(self, callback: object) -> None:
        self.transport.watch(callback)

    def unwatch(self) -> None:
        self.transport.unwatch()

    def send_eof(self) -> None:
        """Send close_notify and FIN: over HTTP/1.1 the gateway ends the whole tunnel then (wire contract §6.3).

        Behind what the kernel does not take yet, they follow with ``flush`` or ``recv_into``. What is received from now
        on is still encrypted: good for nothing but to see it end.
        """
        with suppress(ssl.SSLError):  # it waits for the other side's close_notify, which nobody needs
            self._ssl.unwrap()
        self._has_ended = self._is_ending = True
        self._has_more = False
        self._push()

    def unsent_bytes(self) -> int:
        kept = len(self._unsent) if self._unsent else 0
        return kept + self._outgoing.pending + self.transport.unsent_bytes()

    def is_lost(self) -> bool:
        return self.transport.is_lost()

    def is_dead(self) -> bool:
        return self.transport.is_dead()

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def _decrypt(self, buffer: memoryview) -> int:
        """Decrypt what there is, or as much as fits: its length. An end, or a loss, behind it is kept in mind."""
        total, room, is_drained = 0, len(buffer), False
        incoming, rest = self._incoming, self._scratch[:0]
        may_read = self._has_more
        try:
            while True:
                if may_read:
                    total, may_read = self._read(buffer, total), False
                    if total == room or self._is_at_end or self._loss is not None:
                        break
                if rest:
                    incoming.write(rest[:PART_BYTES])
                    rest, may_read = rest[PART_BYTES:], True
                    continue
                if is_drained:
                    break
                rest = self._scratch[: max(PART_BYTES, room - total)]
                asked, fed = len(rest), self.transport.recv_into(rest)
                if fed == 0:
                    incoming.write_eof()
                rest, may_read = rest[: fed or 0], fed == 0
                is_drained = fed is None or fed < asked  # no more there: asked again, it would say so at a price
        except StreamLost as loss:
            self._loss, rest = loss, rest[:0]
        if rest:
            incoming.write(rest)  # the scratch is others' from now on
        return total

    def _read(self, buffer: memoryview, total: int) -> int:
        """Decrypt record by record what OpenSSL was given, behind what the buffer has: how much it has then."""
        read, room = self._ssl.read, len(buffer)
        try:
            while total < room:
                count = read(room - total, buffer[total:])
                if not count:
                    self._is_at_end = True
                    break
                total += count  # type: ignore[operator]  # typeshed: bytes, or a length
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._is_at_end = True
        except ssl.SSLError as error:
            self._loss = lost_tls(error)
        return total

    def _feed(self) -> int | None:
        """Move what the socket has to the TLS layer: its length, 0 at its end, None if there is nothing now."""
        count = self.transport.recv_into(self._scratch)
        if count:
            self._incoming.write(self._scratch[:count])
        elif count == 0:
            self._incoming.write_eof()
        return count

    def _push(self) -> bool:
        """Hand ciphertext to the socket; True if nothing is left."""
        while True:
            if self._unsent is None:
                if not self._outgoing.pending:
                    break
                self._unsent = memoryview(self._outgoing.read())
            sent = self.transport.send(self._unsent)
            if not sent:
                return False
            self._unsent = self._unsent[sent:] if sent < len(self._unsent) else None
        if self._is_ending:
            self._is_ending = False
            self.transport.send_eof()
        return True

    def _push_or_read_on(self) -> None:
        """Hand ciphertext to the socket; that nobody takes it says nothing of what is still there to be read."""
        with suppress(StreamLost):
            self._push()


def flush_through(push: Callable[[], bool], transport: SocketStream | TlsStream, timeout_s: float | None) -> bool:
    """Push what a stream keeps until the transport below has all of it, and flush that; False after the timeout."""
    if push():
        return transport.flush(timeout_s)
    deadline = None if timeout_s is None else Deadline(timeout_s)
    while not push():
        if deadline is not None and deadline.is_over:
            return False
        transport.wait_writable(deadline.remaining_s if deadline is not None else None)
    return transport.flush(deadline.remaining_s if deadline is not None else None)


def lost_tls(error: ssl.SSLError) -> StreamLost:
    if isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING":
        return StreamLost("closed without close_notify")
    alert = error.reason or ""
    return StreamLost(alert.lower().replace("_", " ") or str(error), alert if "ALERT" in alert else "")
