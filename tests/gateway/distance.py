"""Puts a distance between an agent and its gateway: a relay in a process of its own that delays every byte both ways.

The delay is exact to some 0.1 ms and does not limit throughput: any number of bytes is under way at once (up to
``MAX_UNDER_WAY`` a direction). What a relay cannot delay is TCP's own handshake: here a connection costs no round trip,
so that everything dialled anew looks one round trip better than it is.

It also counts. A TLS handshake is under way from the connection until the client speaks again after the gateway's first
answer.
"""

import contextlib
import gc
import json
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Self

MAX_UNDER_WAY = 64 * 1024 * 1024
READ_BYTES = 256 * 1024
BACKLOG = 4096


@dataclass
class Counts:
    """Connections so far, and TLS handshakes under way: now, and at most at a time."""

    connections: int = 0
    handshakes: int = 0
    most_handshakes: int = 0


class Distance:
    """A running relay to a local port. A context manager."""

    def __init__(self, upstream: tuple[str, int], one_way_ms: float) -> None:
        from tests.gateway.tether import tethered  # the process itself needs the standard library only

        host, port = upstream
        command = tethered(sys.executable, "-I", "-S", __file__, host, str(port), str(one_way_ms))
        from tests.support.agent import processes  # the relay itself is this file, and runs without the tests around it

        self._process = processes.Process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        try:
            self.port = int(self._answer())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def counts(self) -> Counts:
        """What it has counted so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        return Counts(**json.loads(self._answer()))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@dataclass(eq=False)
class _Side:
    """One socket of a pair, and what it is to send."""

    sock: socket.socket
    pair: "_Pair"
    is_client: bool
    unsent: deque[memoryview] = field(default_factory=deque)
    coming: int = 0
    """Bytes that are under way to it or that it has not taken yet."""
    has_ended: bool = False
    """Whether nothing more is read from it."""
    is_finished: bool = False
    """Whether nothing more is sent to it once ``unsent`` is empty."""

    @property
    def other(self) -> "_Side":
        return self.pair.gateway if self.is_client else self.pair.client


@dataclass(eq=False)
class _Pair:
    client: _Side = field(init=False)
    gateway: _Side = field(init=False)
    is_answered: bool = False
    is_secured: bool = False
    is_closed: bool = False


class _Relay:
    def __init__(self, upstream: tuple[str, int], one_way_s: float) -> None:
        self._upstream = upstream
        self._delay_s = one_way_s
        self._epoll = select.epoll()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self._sides: dict[int, _Side] = {}
        self._under_way: deque[tuple[float, _Side, bytes | None]] = deque()
        """Time, receiver and bytes: b"" is an end, None a reset. In order, because all have the same delay."""
        self._counts = Counts()
        for descriptor in (self._listener.fileno(), sys.stdin.fileno()):
            self._epoll.register(descriptor, select.EPOLLIN)

    def run(self) -> None:
        print(self._listener.getsockname()[1], flush=True)
        while True:
            self._wait()
            ready = dict(self._epoll.poll(0))
            self._on_events(ready)
            if self._listener.fileno() in ready:  # last: another handshake may have just ended
                self._on_events(dict(self._epoll.poll(0)))
                self._accept()
            while self._under_way and self._under_way[0][0] <= time.monotonic():
                _, side, data = self._under_way.popleft()
                self._deliver(side, data)

    def _wait(self) -> None:
        """``select`` waits to the microsecond, ``epoll`` to the millisecond."""
        until = max(0.0, self._under_way[0][0] - time.monotonic()) if self._under_way else None
        select.select([self._epoll.fileno()], [], [], until)

    def _on_events(self, ready: dict[int, int]) -> None:
        for descriptor, events in ready.items():
            if descriptor == sys.stdin.fileno():
                self._answer()
            elif side := self._sides.get(descriptor):
                if events & select.EPOLLOUT:
                    self._send(side)
                if not side.pair.is_closed and not side.has_ended and events & ~select.EPOLLOUT:
                    self._receive(side)

    def _answer(self) -> None:
        if not sys.stdin.readline():
            raise SystemExit
        print(json.dumps(asdict(self._counts)), flush=True)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self._counts.connections += 1
        try:
            gateway = socket.create_connection(self._upstream)
        except OSError:
            _reset(client)
            return
        pair = _Pair()
        pair.client, pair.gateway = _Side(client, pair, is_client=True), _Side(gateway, pair, is_client=False)
        for side in (pair.client, pair.gateway):
            side.sock.setblocking(False)
            side.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sides[side.sock.fileno()] = side
            self._epoll.register(side.sock.fileno(), select.EPOLLIN | select.EPOLLONESHOT)
        self._counts.handshakes += 1
        self._counts.most_handshakes = max(self._counts.most_handshakes, self._counts.handshakes)

    def _receive(self, side: _Side) -> None:
        data: bytes | None
        try:
            data = side.sock.recv(READ_BYTES)
        except BlockingIOError:
            self._arm(side)
            return
        except OSError:
            data = None
        self._count(side)
        self._under_way.append((time.monotonic() + self._delay_s, side.other, data))
        side.other.coming += len(data or b"")
        side.has_ended = not data
        self._arm(side)

    def _count(self, side: _Side) -> None:
        pair = side.pair
        if not side.is_client:
            pair.is_answered = True
        elif pair.is_answered and not pair.is_secured:
            pair.is_secured = True
            self._counts.handshakes -= 1

    def _deliver(self, side: _Side, data: bytes | None) -> None:
        if side.pair.is_closed:
            return
        if data is None:
            self._close(side.pair)
            return
        if data:
            side.unsent.append(memoryview(data))
        else:
            side.is_finished = True
        self._send(side)

    def _send(self, side: _Side) -> None:
        try:
            while side.unsent:
                sent = side.sock.send(side.unsent[0])
                side.coming -= sent
                side.unsent[0] = side.unsent[0][sent:]
                if not side.unsent[0]:
                    side.unsent.popleft()
            if side.is_finished:
                side.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            self._under_way.append((time.monotonic() + self._delay_s, side.other, None))
            side.unsent.clear()
        pair = side.pair
        if all(one.is_finished and not one.unsent for one in (pair.client, pair.gateway)):
            self._close(pair, in_order=True)
            return
        self._arm(side)
        self._arm(side.other)

    def _arm(self, side: _Side) -> None:
        """Ask for one event more: a socket that both sides have ended would report that for ever."""
        is_read = not side.has_ended and side.other.coming < MAX_UNDER_WAY
        events = (select.EPOLLIN if is_read else 0) | (select.EPOLLOUT if side.unsent else 0)
        self._epoll.modify(side.sock.fileno(), events | select.EPOLLONESHOT)

    def _close(self, pair: _Pair, *, in_order: bool = False) -> None:
        pair.is_closed = True
        if not pair.is_secured:
            self._counts.handshakes -= 1
        for side in (pair.client, pair.gateway):
            del self._sides[side.sock.fileno()]
            self._epoll.unregister(side.sock.fileno())
            if in_order:
                side.sock.close()
            else:
                _reset(side.sock)


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


if __name__ == "__main__":
    gc.disable()  # a pause to look for garbage would be a delay, and there are no cycles
    _Relay((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]) / 1000).run()
