"""Sets and queries the kernel's options of TCP connections, on both legs of a session."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios

KEEPALIVE_IDLE_S = 15
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_PROBES = 3
UNSETTLED_TIMEOUT_MS = 20_000
"""TCP_USER_TIMEOUT while a tunnel is dialled or warm. On an active leg it would kill live peers that read slowly."""
DEAD_AFTER_MS = 30_000
"""Milliseconds without any ACK for unacknowledged data after which a peer is dead. A slow reader still ACKs probes."""

_STATE_CLOSE = 7
_INFO = struct.Struct("=B23xI28xI")  # struct tcp_info: tcpi_state, tcpi_unacked at 24, tcpi_last_ack_recv at 56
_RESET = struct.pack("ii", 1, 0)
_INT = struct.Struct("i")


def prepare(sock: socket.socket) -> None:
    """Disable Nagle (it costs 40 ms per CONNECT) and enable keepalive. Does nothing to a Unix socket."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


def is_prepared(sock: socket.socket) -> bool:
    """Return whether an accepted socket has inherited the options of a prepared listener."""
    try:
        return (
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEPALIVE_IDLE_S
        )  # other programs may set the rest
    except OSError:  # a Unix socket has no such option
        return True


def limit_silence(sock: socket.socket, *, on: bool) -> None:
    """Make the kernel give up an unacknowledged connection early (``on``), or after its own long schedule."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNSETTLED_TIMEOUT_MS if on else 0)


def cork(sock: socket.socket, *, on: bool) -> None:
    """Make the kernel wait for full segments during several writes (``on``), or send what it has."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)


def wake_for(sock: socket.socket, count: int) -> bool:
    """Make the socket readable only with ``count`` bytes, an end or a reset, or return False if that is impossible.

    See SO_RCVLOWAT in socket(7). A Unix socket never supports it: it is readable with the first byte all the same, and
    a read that finds fewer bytes would swallow a reset.
    """
    if sock.family == socket.AF_UNIX:
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
    except OSError:
        return False
    return True


def is_lost(sock: socket.socket) -> bool:
    """Return whether the peer has reset the connection or is dead. Always False for a Unix socket."""
    return sock.family != socket.AF_UNIX and (_state(sock)[0] == _STATE_CLOSE or is_dead(sock))


def is_dead(sock: socket.socket) -> bool:
    """Return whether the peer has stopped acknowledging, so that no more bytes will arrive from it."""
    if sock.family == socket.AF_UNIX:
        return False
    _, unacked, silent_ms = _state(sock)
    return bool(unacked) and silent_ms > DEAD_AFTER_MS


def _state(sock: socket.socket) -> tuple[int, int, int]:
    """Return the state, the number of unacknowledged segments, and the milliseconds since the last ACK."""
    state, unacked, silent_ms = _INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))
    return state, unacked, silent_ms


def unsent_bytes(sock: socket.socket) -> int:
    """Return how many bytes the peer's kernel has not acknowledged (SIOCOUTQ)."""
    queued: int = _INT.unpack(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(_INT.size)))[0]
    return queued


def reset_on_close(sock: socket.socket) -> None:
    """Make a later close a reset. A Unix socket has no reset and ends in order."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
