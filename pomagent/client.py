"""The local side of a session as a socket: a stream whose other end is on this host, where the kernel can be asked."""

from __future__ import annotations

import socket

from pomagent import tcp
from pomagent.half_close import peer_has_closed
from pomagent.sockdiag import SockDiag
from pomagent.stream import SocketStream


class LocalClient(SocketStream):
    """An accepted connection."""

    __slots__ = ("_diag",)

    def __init__(self, sock: socket.socket, diag: SockDiag | None) -> None:
        super().__init__(sock)
        self._diag = diag
        tcp.prepare(sock)

    def is_at_end(self) -> bool:
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def has_closed(self) -> bool | None:
        return peer_has_closed(self.sock, self._diag)
