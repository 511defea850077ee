"""Loopback ports: unused ones, and ones that stay ours."""

import socket

LOOPBACK = "127.0.0.1"


def unused_port() -> int:
    """A TCP port on which nothing listens at the moment."""
    with socket.create_server((LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])


class ReservedPort:
    """A port that stays ours while nobody listens on it: connecting to it is refused.

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
