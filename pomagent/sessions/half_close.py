"""A client sent its last byte: has it closed the connection, or only shut down its sending half?

Both look the same in the stream. The kernel tells them apart: a TCP socket that was closed has no inode any more, and
a Unix socket whose peer has gone hangs up.
"""

from __future__ import annotations

import select
import socket
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Protocol

from pomagent.transport.sock_diag import Address, SockDiag


class ConnectedSocket(Protocol):
    """A socket of the standard library or of gevent."""

    @property
    def family(self) -> int: ...
    def fileno(self) -> int: ...
    def getpeername(self) -> Address: ...
    def getsockname(self) -> Address: ...


def peer_has_closed(sock: ConnectedSocket, diag: SockDiag | None) -> bool | None:
    """True: closed. False: only shut down. None: it cannot be told, for the peer is not local or the kernel not asked.

    Asked after the end of the client's bytes, and again a moment later: the FIN comes before the socket is let go.
    """
    if sock.family == socket.AF_UNIX:
        return _is_hung_up(sock)
    try:
        peer = sock.getpeername()
    except OSError:  # ENOTCONN: reset meanwhile
        return True
    own = sock.getsockname()
    if diag is None or not _is_local(peer[0], own[0]):
        return None
    return _is_let_go(diag, peer, own)


def _is_let_go(diag: SockDiag, peer: Address, own: Address) -> bool | None:
    try:
        owner = diag.find(peer, own)
    except OSError:
        return None
    if owner is None:
        # Ours still waits for the client, so its socket should exist. Redirected (NAT) or in another network namespace:
        # no proof that it was closed, and the answer on its way would be lost.
        return None
    return owner.inode == 0


@lru_cache(maxsize=256)  # of the addresses of all sessions: to read one takes longer than to ask the kernel
def _is_local(peer: str, own: str) -> bool:
    address = ip_address(peer.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped.is_loopback or peer == own
    return address.is_loopback or peer == own


def _is_hung_up(sock: ConnectedSocket) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), 0)  # POLLHUP is reported unasked
    return bool(poll.poll(0))
