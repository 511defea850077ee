"""Traffic for the benchmarks: a server behind the gateway, and applications that use it.

The server and busy applications run in their own processes: an echo that is timed in one interpreter with busy threads
would wait for their lock.

An application requests a number of bytes down, or announces a number of bytes up and gets one byte back when all have
arrived. It repeats this on one connection. All bytes are zeros, because nothing on the path reads them.
"""

import resource
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Self

from tests.gateway.ports import LOOPBACK
from tests.gateway.tether import tethered

BLOCK = 256 * 1024
BACKLOG = 4096
STACK_BYTES = 128 * 1024
"""Stack size of a thread in bytes. A thousand idle sessions have a thread each."""
BUSY_BYTES = 4 * 10**6
"""Bytes that a busy application requests or announces at a time."""
DOWN, UP = b"D", b"U"
DONE = b"."
_REQUEST = struct.Struct("!cQ")
_ZEROS = memoryview(bytes(BLOCK))


class _Process:
    """A context manager that runs this module as a process, which prints a line when it is ready."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            tethered(sys.executable, "-m", "scripts.bench_traffic", *self._arguments),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        self._said = self._process.stdout.readline()
        if not self._said:
            self.__exit__()
            raise SystemExit(f"scripts.bench_traffic {' '.join(self._arguments)} has ended; see above")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


class Traffic(_Process):
    """The server."""

    def __init__(self) -> None:
        super().__init__("serve")

    @property
    def port(self) -> int:
        return int(self._said)


class Busy(_Process):
    """A context manager that runs busy applications, one for each session, with all tunnels open."""

    def __init__(self, port: int, way: str, streams: int) -> None:
        super().__init__("busy", str(port), way, str(streams))


class Application:
    """An application's connection to a local port."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection((LOOPBACK, port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.settimeout(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def down(self, length: int) -> None:
        self._sock.sendall(_REQUEST.pack(DOWN, length))
        _take(self._sock, length)

    def up(self, length: int) -> None:
        self._sock.sendall(_REQUEST.pack(UP, length))
        _give(self._sock, length)
        _take(self._sock, len(DONE))

    def echo(self) -> None:
        """Send one byte and wait for it to return. Blocks."""
        self.up(1)


WAYS: dict[str, Callable[[Application, int], None]] = {"down": Application.down, "up": Application.up}


def at_once(works: list[Callable[[], None]]) -> None:
    """Run each in a thread and raise the first failure when all have ended. Blocks."""
    with ThreadPoolExecutor(len(works)) as threads:
        for done in [threads.submit(work) for work in works]:
            done.result()


def serve() -> None:
    """Print the port, then serve until killed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    threading.stack_size(STACK_BYTES)
    with socket.create_server((LOOPBACK, 0), backlog=BACKLOG) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_converse, args=(connection,), daemon=True).start()


def keep_busy(port: int, way: str, streams: int) -> None:
    """Print a line once all tunnels are open, then move bytes until killed."""
    applications = [Application(port) for _ in range(streams)]
    for application in applications:
        application.echo()
    print("busy", flush=True)
    at_once([lambda one=one: _never_rest(one, way) for one in applications])  # type: ignore[misc]


def _never_rest(application: Application, way: str) -> None:
    while True:
        WAYS[way](application, BUSY_BYTES)


def _converse(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while request := connection.recv(_REQUEST.size, socket.MSG_WAITALL):
            way, length = _REQUEST.unpack(request)
            if way == DOWN:
                _give(connection, length)
            else:
                _take(connection, length)
                connection.sendall(DONE)


def _give(sock: socket.socket, length: int) -> None:
    while length:
        count = min(length, BLOCK)
        sock.sendall(_ZEROS[:count])
        length -= count


def _take(sock: socket.socket, length: int) -> None:
    buffer = memoryview(bytearray(min(length, BLOCK)))
    while length:
        count = sock.recv_into(buffer[:length])
        if not count:
            raise ConnectionError(f"ended with {length} bytes to come")
        length -= count


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        keep_busy(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
