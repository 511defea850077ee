"""The local side of a session, usually a socket connected to a process on this host, so the kernel knows the user."""

from __future__ import annotations

import socket
from typing import Protocol

from pomagent.sessions.half_close import peer_has_closed
from pomagent.transport import tcp
from pomagent.transport.peer_uid import user_of
from pomagent.transport.sock_diag import SockDiag
from pomagent.transport.stream import SocketStream, Stream


class Client(Stream, Protocol):
    """What a session needs of its local side."""

    def is_at_end(self) -> bool:
        """Return whether the client has sent its end and every byte before it has been read."""

    def has_closed(self) -> bool | None:
        """Return whether a client that sent its end has closed (True) or only shut down (False), or None if unknown."""

    def user(self) -> int | None:
        """Return the uid that the kernel reports for the peer, or None if it reports none. Does not block."""


class LocalClient(SocketStream):
    """An accepted connection."""

    __slots__ = ("_diag",)

    def __init__(self, sock: socket.socket, diag: SockDiag | None) -> None:
        super().__init__(sock)
        self._diag = diag
        if not tcp.is_prepared(sock):  # accepted from a listener that another process created
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
