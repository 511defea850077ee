"""TLS whose records OpenSSL reads from the socket, and writes to it, itself: no copy in between, no memory while idle.

Against TLS through memory it takes a seventh less processor time on the way down and a twentieth less on the way up,
and 35 KB instead of 125 for a session that was busy once (measured, with records as large as they may be).
"""

from __future__ import annotations

import errno
import os
import ssl
from typing import Any, TypeGuard

from pomagent.errors import StreamLost
from pomagent.transport import tcp
from pomagent.transport.stream import Buffer, SocketStream
from pomagent.transport.tls_stream import TlsStream, lost_tls

RECORD_BYTES = 16 * 1024
"""Of plaintext, at most, in a record (RFC 8446 §5.1)."""
_ANOTHER_LIKELY_BYTES = 4096
"""Behind a record of less there is rarely another one: asked, OpenSSL would say so at a price."""


class TlsOverSocket(TlsStream):
    """OpenSSL has the socket, which nothing else reads or writes until our end."""

    __slots__ = ("_kept", "_records", "_socket")

    def __init__(
        self, transport: SocketStream, context: ssl.SSLContext, server_name: str, session: ssl.SSLSession | None = None
    ) -> None:
        """``session`` is offered for a short handshake; it must be of the same context and name. Raises StreamLost."""
        try:
            transport.sock.getpeername()  # as CPython asks, which closes nothing where the answer is a loss
            secured = context.wrap_socket(
                transport.sock, do_handshake_on_connect=False, suppress_ragged_eofs=False, server_hostname=server_name,
                session=session,
            )  # fmt: skip
        except OSError as error:
            if isinstance(error, ssl.SSLError) and error.errno != errno.ENOTCONN:
                raise
            raise transport.note_loss(error) from error
        transport.sock = secured  # the same descriptor
        self._socket = transport
        self._records: Any = getattr(secured, "_sslobj", None) or secured
        """Its ``read`` and ``write`` without a layer of Python between: a twentieth of a transfer's processor time."""
        self._kept: bytes | None = None
        """Of a record that the kernel has no room for: OpenSSL wants to be given the same again."""
        super().__init__(transport, secured)

    def handshake_step(self) -> bool:
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:  # many certificates of ours
            self._is_crossed = True
            return False
        except OSError as error:
            if _is_about_tls(error):
                raise
            raise self._lost(error) from error
        return True

    def send(self, data: Buffer) -> int:
        if not self._push():
            return 0
        self._socket.check_loss()
        view = memoryview(data)
        if len(view) <= RECORD_BYTES:
            return self._send(view)
        tcp.cork(self.sock, on=True)  # or each record would wake the gateway
        try:
            return self._send(view)
        finally:
            tcp.cork(self.sock, on=False)

    def unsent_bytes(self) -> int:
        return len(self._kept or b"") + self.transport.unsent_bytes()

    def _send(self, view: memoryview) -> int:
        """Write record by record; what the kernel has no room for counts as taken, and is kept."""
        write, taken, length = self._records.write, 0, len(view)
        record = view[:0]
        try:
            while taken < length:
                record = view[taken : taken + RECORD_BYTES]
                taken += len(record)
                write(record)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError) as wanted:
            self._kept = bytes(record)
            self._is_crossed = isinstance(wanted, ssl.SSLWantReadError)
        except OSError as error:
            raise self._lost(error) from error
        return taken

    def _decrypt(self, buffer: memoryview) -> int:
        read, total, room = self._records.read, 0, len(buffer)
        self._socket.check_loss()
        try:
            while total < room:
                count = read(room - total, buffer[total:])
                total += count
                if count < _ANOTHER_LIKELY_BYTES:
                    self._is_at_end = not count
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLWantWriteError:  # a gateway asked for new keys, and ours find no room: Envoy never does
            self._is_crossed = True
        except ssl.SSLZeroReturnError:
            self._is_at_end = True
        except OSError as error:
            self._loss = self._lost(error)
        self._socket.note_read(total)
        return total

    def _push_kept(self) -> bool:
        kept, self._kept = self._kept, None
        if kept is not None:
            self._socket.check_loss()
            self._send(memoryview(kept))
        return self._kept is None and (not self._is_ending or self._say_end())

    def _say_end(self) -> bool:
        """Whether close_notify has gone, or never will."""
        try:
            self._ssl.unwrap()
        except ssl.SSLWantWriteError:
            return False
        except (OSError, ValueError):  # it waits for the other side's close_notify, which nobody needs
            pass
        return True

    def _lost(self, error: OSError) -> StreamLost:
        """Of a failed handshake, read or write; a loss that the kernel told of comes in other words, or as EPIPE."""
        if _is_about_tls(error) and not isinstance(error, ssl.SSLEOFError):
            return lost_tls(error)
        transport = self._socket
        if transport.loss is None and transport.is_lost() and not _names_a_loss(error):  # since we asked
            transport.note_loss(OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
        if transport.loss is not None:
            return transport.loss
        return lost_tls(error) if isinstance(error, ssl.SSLError) else transport.note_loss(error)


def _is_about_tls(error: OSError) -> TypeGuard[ssl.SSLError]:
    """Whether what failed is TLS, and not a system call under it.

    CPython calls that an end without close_notify, and with OpenSSL 3.2 or newer an error of the library "SYS".
    """
    return isinstance(error, ssl.SSLError) and error.library != "SYS"


def _names_a_loss(error: OSError) -> bool:
    """Whether the system call's own failure is named; EPIPE is that of an alert which followed."""
    return not isinstance(error, ssl.SSLError) and error.errno != errno.EPIPE
