"""Which local user is at the other end of a connection, by the kernel's word (design: sock_diag, SO_PEERCRED)."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from pathlib import Path

from pomagent.transport.sock_diag import SockDiag

OVERFLOW_UID = 65_534
"""What the kernel says of a user that has no number in this user namespace, such as under ``PrivateUsers=``."""
_ALL_USERS = ["0", "0", "4294967295"]
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid


def user_of(sock: socket.socket, diag: SockDiag | None) -> int | None:
    """The uid of whoever made the connection; None for another host's, and if the kernel does not tell.

    Does not block.
    """
    try:
        uid = _peer_of_unix(sock) if sock.family == socket.AF_UNIX else _peer_of_tcp(sock, diag)
    except OSError:
        return None
    return None if uid == OVERFLOW_UID and not _knows_all_users() else uid


def _peer_of_unix(sock: socket.socket) -> int:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(credentials)[1]
    return uid


def _peer_of_tcp(sock: socket.socket, diag: SockDiag | None) -> int | None:
    owner = diag.find(sock.getpeername(), sock.getsockname()) if diag is not None else None
    if owner is None or not owner.inode:  # a socket that nobody holds any more has no user
        return None
    return owner.uid


def _knows_all_users() -> bool:
    """Whether every user of the host has its own number here."""
    with suppress(OSError):
        return Path("/proc/self/uid_map").read_text().split() == _ALL_USERS
    return False
