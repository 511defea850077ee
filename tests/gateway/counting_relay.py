"""A relay in front of an edge, in a thread of its own, that counts the TLS handshakes that are under way."""

import selectors
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.gateway.ports import LOOPBACK

BLOCK = 64 * 1024
BACKLOG = 1024


class CountingRelay:
    """Passes bytes between its own port and another; a handshake ends with the client's second flight.

    What a client sent before it began another connection is read before that one is counted, so that no handshake
    that is over counts beside its successor.
    """

    def __init__(self, port: int) -> None:
        self._target = (LOOPBACK, port)
        self._listener = socket.create_server((LOOPBACK, 0), backlog=BACKLOG)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._flights: dict[socket.socket, int] = {}
        self._peers: dict[socket.socket, socket.socket] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="counting relay", daemon=True)
        self.most = 0
        """Handshakes that were under way at the same time."""
        self.accepted = 0

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        for sock in [*self._peers, self._listener]:
            sock.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            ready = [key.fileobj for key, _ in self._selector.select(0.05)]
            self._pass_on(ready)
            if self._listener in ready:
                self._pass_on([key.fileobj for key, _ in self._selector.select(0)])
                self._accept()

    def _pass_on(self, ready: list[object]) -> None:
        for sock in ready:
            if isinstance(sock, socket.socket) and sock in self._peers:
                self._pass(sock)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            client, _ = self._listener.accept()
            self.accepted += 1
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                return
            for one, other in ((client, server), (server, client)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._peers[one] = other
                self._selector.register(one, selectors.EVENT_READ)
            self._flights[client] = 0
            self.most = max(self.most, sum(flights < 2 for flights in self._flights.values()))

    def _pass(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(BLOCK)
            if data:
                self._peers[sock].sendall(data)
        except OSError:
            data = b""
        if sock in self._flights:
            self._flights[sock] += 1
        if not data:
            self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        for one in (sock, self._peers[sock]):
            self._selector.unregister(one)
            self._peers.pop(one)
            self._flights.pop(one, None)
            one.close()
