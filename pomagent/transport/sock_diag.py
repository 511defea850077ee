"""Finds the owner of the other end of a local TCP connection by one kernel query of 5-10 µs, without privileges.

See NETLINK_SOCK_DIAG in sock_diag(7). A request names both addresses of one socket, so that nothing is dumped, and the
kernel has answered when ``send`` returns.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from itertools import count
from typing import Final, TypeAlias

Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
"""An address as ``getsockname`` and ``getpeername`` return it."""

NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
NLM_F_REQUEST: Final = 1
NLMSG_ERROR: Final = 2
TCP_LISTEN: Final = 10
ANY_STATE: Final = 0xFFFFFFFF
NO_COOKIE: Final = 0xFFFFFFFF
ATTEMPTS: Final = 3  # a retry drains an overrun or the rest of an interrupted exchange

_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence number, port
# inet_diag_req_v2: family, protocol, extensions, states, and the socket (inet_diag_sockid): local port, remote port,
# local address, remote address, interface, cookie. Ports and addresses are in network byte order.
_REQUEST: Final = struct.Struct("=BBBxI2s2s16s16sIII")
# inet_diag_msg, reduced to what is used: state, remote port, uid, inode.
_ANSWER: Final = struct.Struct("=xBxx2x2s32x12x12xII")
_ERROR: Final = struct.Struct("=i")
_MAPPED: Final = bytes(10) + b"\xff\xff"
_LARGEST_ANSWER: Final = 4096


@dataclass(frozen=True, slots=True)
class Owner:
    """What the kernel reports about one TCP socket."""

    inode: int
    """0 for a socket that no process holds."""
    uid: int
    """The user that created the socket, or that root gave it to. Meaningless without an inode."""
    state: int
    """TCP_ESTABLISHED is 1, TCP_FIN_WAIT2 is 5, as in ``netinet/tcp.h``."""


class SockDiag:
    """A netlink socket for queries about single sockets. Never blocks. For one thread at a time.

    Its constructor raises OSError if this kernel cannot answer: without ``tcp_diag`` every socket would seem absent.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_SOCK_DIAG)
        self._sequence = count(1)
        try:
            self._self_test()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def find(self, local: Address, remote: Address) -> Owner | None:
        """Find the TCP socket with this local and remote address, or return None if there is none.

        Raises OSError if the kernel does not answer.
        """
        request = _request(local, remote)
        for _ in range(ATTEMPTS):
            answer = self._exchange(request)
            if answer is not None:
                return _owner(answer, remote[1])
        raise OSError(errno.ENOBUFS, "the kernel's answer about a socket was lost")

    def _exchange(self, request: bytes) -> tuple[int, bytes] | None:
        """Send a request and return the answer's type and body, or None if the answer was lost."""
        sequence = next(self._sequence) & 0xFFFFFFFF
        header = _HEADER.pack(_HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, sequence, 0)
        self._socket.sendto(header + request, (0, 0))
        try:
            while True:
                data = self._socket.recv(_LARGEST_ANSWER)
                _, kind, _, answered, _ = _HEADER.unpack_from(data)
                if answered == sequence:
                    return kind, data[_HEADER.size :]
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return None
            raise

    def _self_test(self) -> None:
        """Query a listener of this process, which the kernel must find. Raises OSError."""
        with socket.create_server(("127.0.0.1", 0)) as known:
            port: int = known.getsockname()[1]
            answer = self._exchange(_request(("127.0.0.1", port), ("127.0.0.1", 1)))
        if answer is None or answer[0] != SOCK_DIAG_BY_FAMILY:
            raise OSError(errno.EOPNOTSUPP, "the kernel has no tcp_diag")


def _request(local: Address, remote: Address) -> bytes:
    local_ip, remote_ip = _packed(local[0]), _packed(remote[0])
    family = socket.AF_INET if len(local_ip) == 4 else socket.AF_INET6
    interface = local[3] if len(local) == 4 and family == socket.AF_INET6 else 0
    return _REQUEST.pack(
        family, socket.IPPROTO_TCP, 0, ANY_STATE, local[1].to_bytes(2, "big"), remote[1].to_bytes(2, "big"), local_ip,
        remote_ip, interface, NO_COOKIE, NO_COOKIE,
    )  # fmt: skip


def _packed(host: str) -> bytes:
    """Return the address as bytes, an IPv4-mapped one as IPv4: that query finds sockets of both families."""
    if ":" not in host:
        return socket.inet_pton(socket.AF_INET, host)
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return packed.removeprefix(_MAPPED)


def _owner(answer: tuple[int, bytes], remote_port: int) -> Owner | None:
    kind, body = answer
    if kind == NLMSG_ERROR:
        code = -_ERROR.unpack_from(body)[0]
        if code == errno.ENOENT:
            return None
        raise OSError(code, os.strerror(code))
    state, found_port, uid, inode = _ANSWER.unpack_from(body)
    if state == TCP_LISTEN or int.from_bytes(found_port, "big") != remote_port:
        return None  # no such connection: the kernel returned the port's listener instead
    return Owner(inode=inode, uid=uid, state=state)


def open_if_possible() -> SockDiag | None:
    """Return a SockDiag, or None if this kernel does not answer."""
    try:
        return SockDiag()
    except OSError:
        return None
