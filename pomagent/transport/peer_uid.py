"""Asks the kernel which local user is at the other end of a connection (sock_diag, SO_PEERCRED)."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

from pomagent.runtime.unix_peer import peer_of
from pomagent.transport.sock_diag import SockDiag

OVERFLOW_UID = 65_534
"""The uid that the kernel reports for a user without a number in this user namespace (``PrivateUsers=``)."""
_ALL_USERS = ["0", "0", "4294967295"]


def user_of(sock: socket.socket, diag: SockDiag | None) -> int | None:
    """Return the uid of the peer, or None if it is on another host or the kernel reports none. Does not block."""
    try:
        uid = peer_of(sock).uid if sock.family == socket.AF_UNIX else _peer_of_tcp(sock, diag)
    except OSError:
        return None
    return None if uid == OVERFLOW_UID and not _has_all_users() else uid


def _peer_of_tcp(sock: socket.socket, diag: SockDiag | None) -> int | None:
    owner = diag.find(sock.getpeername(), sock.getsockname()) if diag is not None else None
    if owner is None or not owner.inode:  # a socket that no process holds has no user
        return None
    return owner.uid


def _has_all_users() -> bool:
    """Return whether every user of the host has its own number in this namespace."""
    with suppress(OSError):
        return Path("/proc/self/uid_map").read_text().split() == _ALL_USERS
    return False
