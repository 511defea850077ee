"""Handles a client's last byte: has the client closed the connection, or only shut down its sending half?

Both look the same in the stream, but the kernel distinguishes them: a TCP socket that was closed has no inode, and a
Unix socket hangs up when its peer closes.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from itertools import chain, repeat
from typing import Protocol

import gevent

from pomagent.errors import StreamLost
from pomagent.runtime.deadline import Clock
from pomagent.settings import HalfClose
from pomagent.transport.sock_diag import Address, SockDiag
from pomagent.transport.stream import Stream

REMOTE_LINGER_S = 5.0
"""Seconds without a byte after which a half-closed session of a client on another host ends.

Such a client may have closed or only shut down. This kernel cannot know.
"""
RECHECK_S = (0.001, 0.005, 0.02, 0.1, 0.5, 1.0)
"""Pauses between two checks whether a client that sent its end has closed. The last one repeats."""


@dataclass(frozen=True, slots=True)
class HalfClosePolicy:
    """What a session does once its client has sent its last byte."""

    mode: HalfClose
    timeout_s: float
    """Seconds without a byte after which a session with a local client ends."""
    can_carry: bool
    """Whether the tunnel can end one direction alone."""

    @property
    def carries(self) -> bool:
        """Whether the client's end is passed on to the destination."""
        return self.can_carry and self.mode == "auto"

    def linger_s(self, has_closed: bool | None) -> float:
        """Return how many seconds without a byte end the session, given what the kernel knows of the client."""
        return REMOTE_LINGER_S if has_closed is None and not self.carries else self.timeout_s


class Closable(Protocol):
    """A client that may have closed its connection."""

    def has_closed(self) -> bool | None:
        """Return True if closed, False if only shut down, None if this kernel cannot know."""


class Answer(Protocol):
    """The bytes that come down while a half-closed client waits for them."""

    @property
    def bytes_down(self) -> int: ...
    @property
    def is_delivered(self) -> bool: ...
    @property
    def is_client_lost(self) -> bool: ...


def wait_for_answer(answer: Answer, client: Closable, tunnel: Stream, policy: HalfClosePolicy, clock: Clock) -> None:
    """Wait until nothing more can reach a client that has sent its end. Blocks."""
    if policy.mode == "close":
        return
    if policy.carries:
        with suppress(StreamLost):  # the way down reports the loss
            tunnel.send_eof()
            tunnel.flush(policy.timeout_s)
    seen, quiet_since = answer.bytes_down, clock()
    for pause_s in chain(RECHECK_S, repeat(RECHECK_S[-1])):
        has_closed = client.has_closed()
        if has_closed or answer.is_client_lost:
            return
        if answer.bytes_down != seen or not answer.is_delivered:
            seen, quiet_since = answer.bytes_down, clock()
        remaining_s = policy.linger_s(has_closed) - (clock() - quiet_since)
        if remaining_s <= 0:
            return
        gevent.sleep(min(pause_s, remaining_s))


class ConnectedSocket(Protocol):
    """A socket of the standard library or of gevent."""

    @property
    def family(self) -> int: ...
    def fileno(self) -> int: ...
    def getpeername(self) -> Address: ...
    def getsockname(self) -> Address: ...


def peer_has_closed(sock: ConnectedSocket, diag: SockDiag | None) -> bool | None:
    """Return True if the peer has closed, False if it has only shut down, None if this kernel cannot know.

    Check once after the client's last byte and again a moment later: the FIN arrives before the socket is released.
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
    return _is_released(diag, peer, own)


def _is_released(diag: SockDiag, peer: Address, own: Address) -> bool | None:
    try:
        owner = diag.find(peer, own)
    except OSError:
        return None
    if owner is None:
        # Our socket still waits for the client, so the client's socket should exist. It may be redirected (NAT) or in
        # another network namespace. That does not prove a close, and ending now would lose the answer on its way.
        return None
    return owner.inode == 0


@lru_cache(maxsize=256)  # all sessions share few addresses. Parsing one takes longer than the netlink query
def _is_local(peer: str, own: str) -> bool:
    address = ip_address(peer.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped.is_loopback or peer == own
    return address.is_loopback or peer == own


def _is_hung_up(sock: ConnectedSocket) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), 0)  # POLLHUP is always reported
    return bool(poll.poll(0))
