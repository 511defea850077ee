"""TLS in which OpenSSL reads and writes the socket itself, without copies in between and without memory while idle.

Compared with TLS through memory, it needs a seventh less processor time downwards and a twentieth less upwards, and
35 KB instead of 125 KB for a session that was busy once (measured with records of the maximum size).
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
"""Maximum bytes of plaintext in a record (RFC 8446 §5.1)."""
_MORE_LIKELY_BYTES = 4096
"""Record size below which another record rarely follows, so that a further read would only cost a system call."""


class TlsOverSocket(TlsStream):
    """TLS on a socket that only OpenSSL reads and writes until this side ends."""

    __slots__ = ("_kept", "_records", "_socket")

    def __init__(
        self, transport: SocketStream, context: ssl.SSLContext, server_name: str, session: ssl.SSLSession | None = None
    ) -> None:
        """``session`` is offered for resumption and must come from the same context and name. Raises StreamLost."""
        try:
            transport.sock.getpeername()  # wrap_socket asks the same, but closes the socket on a loss
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
        """Has ``read`` and ``write`` without ssl.SSLSocket's Python layer, a twentieth of a transfer's CPU time."""
        self._kept: bytes | None = None
        """Plaintext of a record that the kernel had no room for. OpenSSL requires a retry with the same bytes."""
        super().__init__(transport, secured)

    def handshake_step(self) -> bool:
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:  # a long chain of client certificates
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
        tcp.cork(self.sock, on=True)  # otherwise each record would wake the gateway
        try:
            return self._send(view)
        finally:
            tcp.cork(self.sock, on=False)

    def unsent_bytes(self) -> int:
        return len(self._kept or b"") + self.transport.unsent_bytes()

    def _send(self, view: memoryview) -> int:
        """Write record by record. A record that the kernel has no room for is kept and counts as accepted."""
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
                if count < _MORE_LIKELY_BYTES:
                    self._is_at_end = not count
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLWantWriteError:  # no room for the answer to a key update, which Envoy never requests
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
        return self._kept is None and (not self._is_ending or self._send_close_notify())

    def _send_close_notify(self) -> bool:
        """Return whether close_notify was sent, or never can be."""
        try:
            self._ssl.unwrap()
        except ssl.SSLWantWriteError:
            return False
        except (OSError, ValueError):  # raised because the peer has sent no close_notify, which is not needed
            pass
        return True

    def _lost(self, error: OSError) -> StreamLost:
        """Classify a failed handshake, read or write. OpenSSL hides a loss behind another error, or behind EPIPE."""
        if _is_about_tls(error) and not isinstance(error, ssl.SSLEOFError):
            return lost_tls(error)
        transport = self._socket
        if transport.loss is None and transport.is_lost() and not _names_a_loss(error):  # since check_loss
            transport.note_loss(OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
        if transport.loss is not None:
            return transport.loss
        return lost_tls(error) if isinstance(error, ssl.SSLError) else transport.note_loss(error)


def _is_about_tls(error: OSError) -> TypeGuard[ssl.SSLError]:
    """Return whether TLS itself failed, and not a system call below it.

    CPython reports a failed system call as an end without close_notify, and with OpenSSL 3.2 or newer as an error of
    the library "SYS".
    """
    return isinstance(error, ssl.SSLError) and error.library != "SYS"


def _names_a_loss(error: OSError) -> bool:
    """Return whether the error is the system call's own. EPIPE comes from sending an alert afterwards."""
    return not isinstance(error, ssl.SSLError) and error.errno != errno.EPIPE
