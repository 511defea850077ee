"""The local side of a session: usually a socket whose other end is on this host, where the kernel can be asked."""

from __future__ import annotations

import socket
from typing import Protocol

from pomagent.sessions.half_close import peer_has_closed
from pomagent.sessions.peer_uid import user_of
from pomagent.transport import tcp
from pomagent.transport.sock_diag import SockDiag
from pomagent.transport.stream import SocketStream, Stream


class Client(Stream, Protocol):
    """What a session needs of its local side."""

    def is_at_end(self) -> bool:
        """Whether the client has sent its end and nothing that is still unread."""

    def has_closed(self) -> bool | None:
        """Of a client that sent its end: closed (True), only shut down (False), or nobody can know (None)."""

    def user(self) -> int | None:
        """The uid of whoever connected, by the kernel's word; None if it does not tell. Does not block."""


class LocalClient(SocketStream):
    """An accepted connection."""

    __slots__ = ("_diag",)

    def __init__(self, sock: socket.socket, diag: SockDiag | None) -> None:
        super().__init__(sock)
        self._diag = diag
        if not tcp.is_prepared(sock):  # it waited at a listener that another process has made
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

    def user(self) -> int | None:
        return user_of(self.sock, self._diag)
