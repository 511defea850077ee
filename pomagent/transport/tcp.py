"""What the kernel is told, and asked, about a TCP connection (design: options of both legs, dead peers)."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios

KEEPALIVE_IDLE_S = 15
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_PROBES = 3
UNSETTLED_TIMEOUT_MS = 20_000
"""TCP_USER_TIMEOUT while dialling and warm. Never on an active leg: there it kills live peers that read slowly."""
DEAD_AFTER_MS = 30_000
"""Data unacknowledged and not one ACK for so long: the peer is gone. A slow reader still acknowledges probes."""

_STATE_CLOSE = 7
_INFO = struct.Struct("=B23xI28xI")  # struct tcp_info: tcpi_state, tcpi_unacked at 24, tcpi_last_ack_recv at 56
_RESET = struct.pack("ii", 1, 0)
_INT = struct.Struct("i")


def prepare(sock: socket.socket) -> None:
    """Set what both legs need: no Nagle (it costs 40 ms per CONNECT), and keepalive. Unix sockets need nothing."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


def is_prepared(sock: socket.socket) -> bool:
    """Whether an accepted socket needs nothing more: the kernel hands on what its listener was prepared with."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEPALIVE_IDLE_S  # others set the rest, too
    except OSError:  # a Unix socket has no such option
        return True


def limit_silence(sock: socket.socket, *, on: bool) -> None:
    """Have the kernel give up an unacknowledged connection early (``on``), or go by its own long schedule."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNSETTLED_TIMEOUT_MS if on else 0)


def cork(sock: socket.socket, *, on: bool) -> None:
    """Have the kernel wait for full segments while several writes follow one another; off, what there is goes."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)


def wake_for(sock: socket.socket, count: int) -> bool:
    """Have the kernel call the socket readable once so many bytes are there, or an end, or a reset; False if it cannot.

    See SO_RCVLOWAT, socket(7). Never of a Unix socket, which is readable with the first byte all the same, and whose
    reset a read that finds less would swallow.
    """
    if sock.family == socket.AF_UNIX:
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
    except OSError:
        return False
    return True


def is_lost(sock: socket.socket) -> bool:
    """Whether the peer has reset the connection or vanished; always False for a Unix socket, which cannot be lost."""
    return sock.family != socket.AF_UNIX and (_state(sock)[0] == _STATE_CLOSE or is_dead(sock))


def is_dead(sock: socket.socket) -> bool:
    """Whether the peer has vanished: it does not acknowledge, and so nothing will ever be read from it again."""
    if sock.family == socket.AF_UNIX:
        return False
    _, unacked, silent_ms = _state(sock)
    return bool(unacked) and silent_ms > DEAD_AFTER_MS


def _state(sock: socket.socket) -> tuple[int, int, int]:
    """Its state, segments that are not acknowledged, milliseconds since the last acknowledgement."""
    state, unacked, silent_ms = _INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))
    return state, unacked, silent_ms


def unsent_bytes(sock: socket.socket) -> int:
    """Bytes that the peer's kernel has not acknowledged (SIOCOUTQ)."""
    queued: int = _INT.unpack(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(_INT.size)))[0]
    return queued


def reset_on_close(sock: socket.socket) -> None:
    """Have the peer see a reset when this is closed; over a Unix socket, which has none, it is an ordinary end."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
