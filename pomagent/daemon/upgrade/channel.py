"""Carries messages and sockets between two processes of one service during an upgrade.

A message is one JSON object in one packet (unix(7), SOCK_SEQPACKET); its key ``is`` names its type. The two processes
may be of different versions, so unknown keys are ignored.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import gevent
from gevent.socket import wait_read, wait_write

from pomagent.errors import PomagentError

MAX_MESSAGE_BYTES: Final = 128 * 1024
MAX_SOCKETS: Final = 200
"""Maximum sockets in one message; the kernel allows 253."""

Message = Mapping[str, Any]


class ChannelClosed(PomagentError):
    """The other process has ended or closed the channel."""


class Channel:
    """One end of a channel. Only one greenlet at a time may receive."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)

    def close(self) -> None:
        self.sock.close()

    def send(self, message: Message, sockets: Sequence[socket.socket] = ()) -> None:
        """Send a message. Blocks while the other side does not read. Raises ChannelClosed."""
        data = json.dumps(message).encode()
        while True:
            try:
                socket.send_fds(self.sock, [data], [sock.fileno() for sock in sockets])
            except BlockingIOError:
                wait_write(self.sock.fileno())
            except OSError as error:
                raise ChannelClosed("the other process has ended") from error
            else:
                return

    def try_to_send(self, message: Message) -> None:
        """Send a message, or drop it if the other process has ended or does not read. Does not block."""
        with suppress(OSError):
            self.sock.send(json.dumps(message).encode())

    def receive(self, timeout_s: float | None = None) -> tuple[Message, list[socket.socket]]:
        """Return the next message and its sockets. Blocks. Raises ChannelClosed, TimeoutError."""
        with gevent.Timeout(timeout_s, TimeoutError("no message from the other process")):
            while True:
                try:
                    return self._receive()
                except BlockingIOError:
                    wait_read(self.sock.fileno())

    def _receive(self) -> tuple[Message, list[socket.socket]]:
        try:
            data, fds, _, _ = socket.recv_fds(self.sock, MAX_MESSAGE_BYTES, MAX_SOCKETS, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError as error:
            raise ChannelClosed("the other process has ended") from error
        sockets = [socket.socket(fileno=fd) for fd in fds]
        if not data:
            raise ChannelClosed("the other process has ended")
        message = None
        with suppress(ValueError):
            message = json.loads(data)
        if not isinstance(message, dict):
            raise ChannelClosed("the other process sent something that is no message")
        return message, sockets
