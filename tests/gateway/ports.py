"""Loopback ports: unused ones, and ones that stay ours."""

import os
import socket
from contextlib import suppress
from itertools import count
from pathlib import Path

LOOPBACK = "127.0.0.1"
LOWEST_PORT = 10_000

_numbers = count(os.getpid() * 97)  # other test processes begin elsewhere


def unused_port() -> int:
    """A TCP port on which nothing listens at the moment, and that the kernel does not assign to other programs."""
    given_away_from = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = given_away_from - LOWEST_PORT
    for number in _numbers:
        port = LOWEST_PORT + number % ports
        with suppress(OSError), socket.create_server((LOOPBACK, port)):
            return port
    raise AssertionError("numbers do not end")


class ReservedPort:
    """A port that stays reserved without a listener: connecting to it is refused.

    The socket is bound and never listens. SO_REUSEPORT lets a server of the same user, which sets it too (Envoy
    does), listen on the port, leave it and come back, with no other program slipping in between.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind((LOOPBACK, 0))
        self.port: int = self._socket.getsockname()[1]

    def release(self) -> None:
        self._socket.close()
