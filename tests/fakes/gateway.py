"""A gateway on loopback that a test plays line by line: it refuses, stalls, stutters, resets and lies as scripted.

It lives in greenlets of the test's own thread, so an agent in the same process talks to it. Every accepted connection
runs the next of the ``scripts``. The last one repeats. A script gets the ``Connection`` and may leave it to the test.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import gevent
from gevent import Timeout
from gevent import socket as cooperative
from gevent.pool import Group
from gevent.queue import Queue

from pomagent.settings import Gateway, HostPort, Route, Trust
from tests.gateway.certificates import Authority, Certificate
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import scaled

HOST = "gateway.example.test"
DESTINATION = HostPort("db.example.test", 5432)
OK = b"HTTP/1.1 200 OK\r\nx-request-id: fake-1\r\n\r\n"
HEAD_END = b"\r\n\r\n"
CHUNK = 65536


class Connection:
    """One accepted connection. TLS is done by hand, so that every byte and every end is the test's choice."""

    def __init__(self, sock: Any, context: ssl.SSLContext) -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.request = b""
        """The head of the CONNECT, once it was read."""

    def handshake(self) -> None:
        self._do(self.tls.do_handshake)

    def read_request(self) -> bytes:
        """Read the head of a CONNECT."""
        while HEAD_END not in self.request:
            more = self.receive_some()
            if not more:
                raise ConnectionAbortedError("the agent left before its CONNECT")
            self.request += more
        return self.request

    def send(self, data: bytes) -> None:
        """Send as records of 16 KiB, together in as few segments as the kernel likes."""
        for start in range(0, len(data), CHUNK):
            self._do(partial(self.tls.write, data[start : start + CHUNK]))

    def encrypt(self, data: bytes) -> bytes:
        """What ``send`` would put on the wire, for ``send_raw``."""
        self.tls.write(data)
        return self._outgoing.read()

    def send_raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def receive_some(self) -> bytes:
        """What comes next. Empty at the end. Raises ConnectionError after any other end than an orderly one."""
        try:
            return bytes(self._do(lambda: self.tls.read(CHUNK)))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def receive(self, length: int) -> bytes:
        """Return at least ``count`` bytes, fewer only at the end."""
        data = bytearray()
        while len(data) < length and (more := self.receive_some()):
            data += more
        return bytes(data)

    def receive_all(self) -> bytes:
        return b"".join(iter(self.receive_some, b""))

    # Ways to end.

    def close_notify(self) -> None:
        """Send close_notify, and no FIN."""
        with suppress(ssl.SSLError):
            self.tls.unwrap()
        self._push()

    def finish(self) -> None:
        """As a gateway does: close_notify, then FIN. What the client still sends is read and dropped."""
        with suppress(OSError):  # the client has gone before us
            self.close_notify()
            self.fin()

    def fin(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def _do(self, operation: Callable[[], Any]) -> Any:
        """Run a TLS operation, moving bytes until it is done."""
        while True:
            try:
                result = operation()
            except ssl.SSLWantReadError:
                self._push()
                data = self.sock.recv(CHUNK)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            except ssl.SSLError:
                with suppress(OSError):
                    self._push()  # the alert
                raise
            else:
                self._push()
                return result

    def _push(self) -> None:
        if self._outgoing.pending:
            self.sock.sendall(self._outgoing.read())


Script = Callable[[Connection], None]


# --- scripts ----------------------------------------------------------------------------------------------------------


def accepts(early: bytes = b"", answer: bytes = OK) -> Script:
    """Accept the CONNECT, ``early`` in the same segment. Then it is the test's: ``FakeGateway.tunnel()``."""

    def play(connection: Connection) -> None:
        connection.handshake()
        connection.read_request()
        connection.send(answer + early)

    return play


def refuses(status: int, body: bytes = b"", **headers: str) -> Script:
    lines = [f"HTTP/1.1 {status} Refused", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return answers("\r\n".join([*lines, "", ""]).encode() + body)


def rejects(status: int = 401) -> Script:
    """Reject the CONNECT in Pomerium's own words: a 401, a 403, or a redirect to the sign-in page."""
    if status in (401, 403):
        return refuses(status, b'{"error":"Forbidden","request_id":"r-1"}')
    return refuses(status, location="https://auth.example.test/.pomerium/sign_in?x=y")


def answers(raw: bytes, piece: int = 0) -> Script:
    """Answer a CONNECT with these bytes, in pieces of ``size`` with a pause after each, and leave it open."""

    def play(connection: Connection) -> None:
        connection.handshake()
        connection.read_request()
        for start in range(0, len(raw), piece or len(raw)):
            connection.send(raw[start : start + (piece or len(raw))])
            gevent.sleep(0.001 if piece else 0)

    return play


def then(first: Script, end: Callable[[Connection], None]) -> Script:
    """A script and, right after it, one of the ways to end: ``then(refuses(403), Connection.fin)``."""

    def play(connection: Connection) -> None:
        first(connection)
        end(connection)

    return play


def says_nothing(connection: Connection) -> None:
    """Accept in TCP, and not a byte of TLS."""


def secures(connection: Connection) -> None:
    """Do the TLS handshake, and then nothing."""
    connection.handshake()


def reads(connection: Connection) -> None:
    """Do the TLS handshake, read the CONNECT, and then nothing."""
    connection.handshake()
    connection.read_request()


def resets(connection: Connection) -> None:
    connection.sock.recv(1)
    connection.reset()


def closes(connection: Connection) -> None:
    connection.sock.recv(1)
    connection.fin()


def babbles(connection: Connection) -> None:
    """Answer a TLS client as a plain-text server does."""
    connection.sock.recv(CHUNK)
    connection.send_raw(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\nThis is no TLS\n")
    connection.fin()


# --- the gateway ------------------------------------------------------------------------------------------------------


class FakeGateway:
    """Listens on a loopback port of its own until its ``with`` ends."""

    def __init__(
        self, authority: Authority, certificate: Certificate | None = None, host: str = LOOPBACK,
        transport: Literal["http1", "http2"] = "http1",
    ) -> None:  # fmt: skip
        self.authority = authority
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        served = certificate or authority.issue_server("fake")
        self.context.load_cert_chain(served.cert_file, served.key_file)
        self.transport = transport
        self.context.set_alpn_protocols(["http/1.1"] if transport == "http1" else ["h2"])
        self.connections: list[Connection] = []
        """Every connection so far, oldest first."""
        self.errors: list[Exception] = []
        """What its scripts met."""
        self._scripts: deque[Script] = deque([accepts()])
        self._tunnels: Queue = Queue()
        self._group = Group()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = cooperative.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, 0))
        self._listener.listen(128)
        self.address = HostPort(host, self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._group.spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group.kill()
        self._listener.close()
        for connection in self.connections:
            connection.close()

    def plays(self, *scripts: Script) -> None:
        """What it does with the next connections, one after the other. The last one repeats."""
        self._scripts = deque(scripts)

    def tunnel(self, timeout_s: float = 5) -> Connection:
        """Return the next connection after its script has ended without an error."""
        with Timeout(scaled(timeout_s)):
            connection: Connection = self._tunnels.get()
        return connection

    @property
    def settings(self) -> Gateway:
        """The agent's settings for this gateway."""
        return Gateway(
            "fake", HostPort(HOST, self.address.port), connect_to=self.address,
            trust=Trust(ca_file=self.authority.ca_file), connect_timeout_s=2, tls_timeout_s=2, response_timeout_s=2,
            transport=self.transport,
        )  # fmt: skip

    def route(self, gateway: Gateway | None = None, **changes: Any) -> Route:
        """A route through it."""
        route = Route("db", HostPort(LOOPBACK, 0), DESTINATION, gateway or self.settings)
        return replace(route, **changes)

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, self.context)
            self.connections.append(connection)
            script = self._scripts[0] if len(self._scripts) == 1 else self._scripts.popleft()
            self._group.spawn(self._play, script, connection)

    def _play(self, script: Script, connection: Connection) -> None:
        try:
            script(connection)
        except (OSError, ssl.SSLError) as error:
            self.errors.append(error)
        else:
            self._tunnels.put(connection)


def black_hole() -> tuple[HostPort, list[socket.socket]]:
    """An address that never answers a SYN: its backlog is full. The sockets keep it so until they are closed."""
    listener = socket.create_server((LOOPBACK, 0), backlog=0)
    sockets = [listener]
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        sockets.append(filler)
    return HostPort(*listener.getsockname()), sockets
