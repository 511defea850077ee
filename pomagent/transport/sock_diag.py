"""Who holds the other end of a local TCP connection: one exact question to the kernel, 5-10 µs, for any user.

NETLINK_SOCK_DIAG, see sock_diag(7): a request names both addresses of one socket, so nothing is dumped, and the kernel
has answered when ``send`` returns.
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
"""As ``getsockname`` and ``getpeername`` give them."""

NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
NLM_F_REQUEST: Final = 1
NLMSG_ERROR: Final = 2
TCP_LISTEN: Final = 10
ANY_STATE: Final = 0xFFFFFFFF
NO_COOKIE: Final = 0xFFFFFFFF
ATTEMPTS: Final = 3  # an overrun or a leftover of an interrupted exchange is drained by asking again

_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence number, port
# inet_diag_req_v2: family, protocol, extensions, states, and the socket (inet_diag_sockid): own port, other port, own
# address, other address, interface, cookie. Ports and addresses stand in the order of the network.
_REQUEST: Final = struct.Struct("=BBBxI2s2s16s16sIII")
# inet_diag_msg, but for what nobody needs: state, other port, uid, inode.
_ANSWER: Final = struct.Struct("=xBxx2x2s32x12x12xII")
_ERROR: Final = struct.Struct("=i")
_MAPPED: Final = bytes(10) + b"\xff\xff"
_LARGEST_ANSWER: Final = 4096


@dataclass(frozen=True, slots=True)
class Owner:
    """What the kernel knows of one TCP socket."""

    inode: int
    """0 for a socket that no process holds any more."""
    uid: int
    """Of whoever made the socket, or was given it by root; means nothing without an inode."""
    state: int
    """TCP_ESTABLISHED is 1, TCP_FIN_WAIT2 is 5, as in ``netinet/tcp.h``."""


class SockDiag:
    """One netlink socket for exact questions. Never blocks; for one thread at a time.

    Making it raises OSError if this kernel cannot answer: without ``tcp_diag`` every socket would look absent.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_SOCK_DIAG)
        self._sequence = count(1)
        try:
            self._prove()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def find(self, local: Address, remote: Address) -> Owner | None:
        """Finds the TCP socket whose own address is ``local`` and whose peer is ``remote``; None if there is none.

        Raises OSError when the kernel cannot be asked.
        """
        question = _question(local, remote)
        for _ in range(ATTEMPTS):
            answer = self._ask(question)
            if answer is not None:
                return _owner(answer, remote[1])
        raise OSError(errno.ENOBUFS, "the kernel's answer about a socket was lost")

    def _ask(self, question: bytes) -> tuple[int, bytes] | None:
        """One exchange; None if the answer did not arrive."""
        sequence = next(self._sequence) & 0xFFFFFFFF
        header = _HEADER.pack(_HEADER.size + len(question), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, sequence, 0)
        self._socket.sendto(header + question, (0, 0))
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

    def _prove(self) -> None:
        """Asks for a listener of our own, which must be found."""
        with socket.create_server(("127.0.0.1", 0)) as known:
            port: int = known.getsockname()[1]
            answer = self._ask(_question(("127.0.0.1", port), ("127.0.0.1", 1)))
        if answer is None or answer[0] != SOCK_DIAG_BY_FAMILY:
            raise OSError(errno.EOPNOTSUPP, "the kernel has no tcp_diag")


def _question(local: Address, remote: Address) -> bytes:
    own, other = _packed(local[0]), _packed(remote[0])
    family = socket.AF_INET if len(own) == 4 else socket.AF_INET6
    interface = local[3] if len(local) == 4 and family == socket.AF_INET6 else 0
    return _REQUEST.pack(
        family, socket.IPPROTO_TCP, 0, ANY_STATE, local[1].to_bytes(2, "big"), remote[1].to_bytes(2, "big"), own, other,
        interface, NO_COOKIE, NO_COOKIE,
    )  # fmt: skip


def _packed(host: str) -> bytes:
    """The address as bytes, an IPv4-mapped one as IPv4: that look-up finds sockets of either family."""
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
        return None  # no such connection: the kernel offers the port's listener
    return Owner(inode=inode, uid=uid, state=state)


def open_if_possible() -> SockDiag | None:
    """None where the kernel does not answer."""
    try:
        return SockDiag()
    except OSError:
        return None
