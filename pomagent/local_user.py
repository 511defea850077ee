"""Which local user is at the other end of a connection, by the kernel's word (design: sock_diag, SO_PEERCRED)."""

from __future__ import annotations

import pwd
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pomagent.sockdiag import SockDiag

OVERFLOW_UID = 65_534
"""What the kernel says of a user that has no number in this user namespace, such as under ``PrivateUsers=``."""
_ALL_USERS = ["0", "0", "4294967295"]


def user_of(sock: socket.socket, diag: SockDiag | None) -> int | None:
    """The uid of whoever made the TCP connection; None for another host's, and if the kernel does not tell.

    Does not block.
    """
    if diag is None:
        return None
    try:
        owner = diag.find(sock.getpeername(), sock.getsockname())
    except OSError:
        return None
    if owner is None or not owner.inode:  # a socket that nobody holds any more has no user
        return None
    return None if owner.uid == OVERFLOW_UID and not _knows_all_users() else owner.uid


def uids_of(users: Iterable[str]) -> frozenset[int]:
    """The uids of names and numbers; a name that nobody has stands for nobody. Blocks: not for the hub."""
    found = set()
    for user in users:
        if user.isascii() and user.isdigit():
            found.add(int(user))
            continue
        with suppress(KeyError):
            found.add(pwd.getpwnam(user).pw_uid)
    return frozenset(found)


def _knows_all_users() -> bool:
    """Whether every user of the host has its own number here."""
    with suppress(OSError):
        return Path("/proc/self/uid_map").read_text().split() == _ALL_USERS
    return False
