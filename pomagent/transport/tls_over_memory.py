"""TLS through memory, which works over any stream, including TLS, and needs few system calls for small records."""

from __future__ import annotations

import ssl
from contextlib import suppress

from pomagent.errors import StreamLost
from pomagent.transport.stream import SCRATCH_BYTES, Buffer, SocketStream
from pomagent.transport.tls_stream import TlsStream, lost_tls

MOST_SENT_BYTES = SCRATCH_BYTES + 4096
"""Maximum bytes accepted at a time: one read from a client, with the headers of the frames that may carry it."""

PART_BYTES = 32 * 1024
"""Bytes of ciphertext moved to or from OpenSSL at a time, because a ``MemoryBIO`` never shrinks.

Half as many cost a quarter more processor time (measured).
"""


class TlsOverMemory(TlsStream):
    """TLS in which OpenSSL works in memory, and this class moves ciphertext from and to the transport."""

    __slots__ = ("_incoming", "_outgoing", "_scratch", "_unsent")

    def __init__(
        self, transport: SocketStream | TlsStream, context: ssl.SSLContext, server_name: str, scratch: memoryview,
        session: ssl.SSLSession | None = None,
    ) -> None:  # fmt: skip
        """``scratch`` may be shared by all streams of the hub, except by this one's ``transport``.

        ``session`` is offered for resumption and must come from the same context and name.
        """
        self._scratch = scratch
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._unsent: memoryview | None = None
        super().__init__(
            transport,
            context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name, session=session),
        )

    def handshake_step(self) -> bool:
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                self._push_quietly()
                if self._feed() is None:
                    return False
            except ssl.SSLError:
                self._push_quietly()  # sends the alert, so that the gateway can log why this side gave up
                raise
            else:
                self._push_quietly()
                self._has_more = True  # bytes that came with the end of the handshake, such as tickets
                return True

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
        except ssl.SSLWantReadError:
            self._is_crossed = True
        except ssl.SSLError as error:
            raise lost_tls(error) from error
        if parts:
            sent = self.transport.send_parts(parts)
            if sent < sum(map(len, parts)):
                self._unsent = memoryview(b"".join(parts))[sent:]
        return taken

    def send_eof(self) -> None:
        with suppress(ssl.SSLError):  # raised because the peer has sent no close_notify, which is not needed
            self._ssl.unwrap()
        super().send_eof()

    def unsent_bytes(self) -> int:
        kept = len(self._unsent) if self._unsent else 0
        return kept + self._outgoing.pending + self.transport.unsent_bytes()

    def _decrypt(self, buffer: memoryview) -> int:
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
                is_drained = fed is None or fed < asked  # another read would only cost a system call
        except StreamLost as loss:
            self._loss, rest = loss, rest[:0]
        if rest:
            incoming.write(rest)  # other streams reuse the scratch buffer from now on
        if self._outgoing.pending:
            self._push_quietly()  # answers of the TLS layer itself, such as a key update
        return total

    def _read(self, buffer: memoryview, total: int) -> int:
        """Decrypt record by record into the buffer after its first ``total`` bytes and return its new length."""
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
        """Move received ciphertext to OpenSSL and return its length, 0 at the end, None if there is nothing now."""
        count = self.transport.recv_into(self._scratch)
        if count:
            self._incoming.write(self._scratch[:count])
        elif count == 0:
            self._incoming.write_eof()
        return count

    def _push_kept(self) -> bool:
        while True:
            if self._unsent is None:
                if not self._outgoing.pending:
                    return True
                self._unsent = memoryview(self._outgoing.read())
            sent = self.transport.send(self._unsent)
            if not sent:
                return False
            self._unsent = self._unsent[sent:] if sent < len(self._unsent) else None
