"""Messages, and sockets with them, between two processes of one service: what an upgrade hands over goes this way.

One message is one JSON object in one packet (unix(7), SOCK_SEQPACKET). The two may be of different versions: keys that
are not known are ignored, and ``is`` says what a message is.
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
"""In one message; the kernel allows 253."""

Message = Mapping[str, Any]


class ChannelClosed(PomagentError):
    """The other process has ended, or has let go of the channel."""


class Channel:
    """One end. Not for two greenlets that receive at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)

    def close(self) -> None:
        self.sock.close()

    def send(self, message: Message, sockets: Sequence[socket.socket] = ()) -> None:
        """Blocks while the other side does not read. Raises ChannelClosed."""
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
        """The same for what is of no use to a process that has ended, or that does not read. Does not block."""
        with suppress(OSError):
            self.sock.send(json.dumps(message).encode())

    def receive(self, timeout_s: float | None = None) -> tuple[Message, list[socket.socket]]:
        """The next message. Blocks. Raises ChannelClosed, TimeoutError."""
        with gevent.Timeout(timeout_s, TimeoutError("no word from the other process")):
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
            raise ChannelClosed("the other process said something that is no message")
        return message, sockets
