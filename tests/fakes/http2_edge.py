"""A gateway on loopback that speaks HTTP/2 with the ``h2`` library, and breaks the protocol on request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import h2.config
import h2.connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    PingReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes

from tests.fakes.gateway import Connection, FakeGateway, Script
from tests.gateway.certificates import Authority

OK = ((":status", "200"), ("x-request-id", "fake-h2"))
STREAM = 1


class Http2Edge:
    """The gateway's end of one connection. It reads only when the test calls for it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.request: dict[bytes, bytes] = {}
        self.received = bytearray()
        """Bytes of the tunnel so far."""
        self.updates_window = True
        """Whether received bytes are credited to the agent's window at once."""
        self.has_ended = False
        """Whether the agent has sent END_STREAM."""
        self.reset_with: int | None = None
        self.left_with: int | None = None
        self.pings = self.pongs = 0
        self.is_over = False
        """Whether the connection has ended."""

    def begin(self, initial_window: int = 65_535) -> None:
        self.connection.handshake()
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: initial_window})
        self.push()

    def push(self) -> None:
        """Send the library's pending frames."""
        data = self.h2.data_to_send()
        if data:
            self.connection.send(data)

    def read(self) -> None:
        """Receive the agent's next bytes. Blocks."""
        data = self.connection.receive_some()
        if not data:
            self.is_over = True
            return
        for event in self.h2.receive_data(data):
            self._note(event)
        self.push()

    def read_until(self, condition: object) -> None:
        """Receive until the condition holds or the connection ends. Blocks."""
        while not condition() and not self.is_over:  # type: ignore[operator]
            self.read()

    def accept(self, *, end: bool = False) -> None:
        self.read_until(lambda: self.request)
        self.h2.send_headers(STREAM, list(OK), end_stream=end)
        self.push()

    def refuse(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.read_until(lambda: self.request)
        self.h2.send_headers(STREAM, [(":status", str(status)), *headers.items()], end_stream=not body)
        if body:
            self.h2.send_data(STREAM, body, end_stream=True)
        self.push()

    def send(self, data: bytes, *, end: bool = False) -> None:
        """Send to the agent in frames of 16 KiB."""
        for start in range(0, len(data) or 1, 16_384):
            last = start + 16_384 >= len(data)
            self.h2.send_data(STREAM, data[start : start + 16_384], end_stream=end and last)
        self.push()

    def end(self) -> None:
        self.h2.end_stream(STREAM)
        self.push()

    def reset(self, code: int) -> None:
        self.h2.reset_stream(STREAM, code)
        self.push()

    def go_away(self, code: int = 0, last: int = STREAM) -> None:
        self.h2.close_connection(code, last_stream_id=last)
        self.push()

    def send_raw(self, data: bytes) -> None:
        """Send frames that the library would never send."""
        self.connection.send(data)

    def _note(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self.request = dict(event.headers)  # type: ignore[arg-type]
        elif isinstance(event, DataReceived):
            self.received += event.data or b""
            if self.updates_window and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, STREAM)
        elif isinstance(event, StreamEnded):
            self.has_ended = True
        elif isinstance(event, StreamReset):
            self.reset_with = event.error_code
        elif isinstance(event, ConnectionTerminated):
            self.left_with = event.error_code
        elif isinstance(event, PingReceived):
            self.pings += 1
        elif isinstance(event, PingAckReceived):
            self.pongs += 1


class Http2Gateway:
    """A ``FakeGateway`` that serves each connection with an ``Http2Edge``."""

    def __init__(self, fake: FakeGateway) -> None:
        self.fake = fake
        self.edges: list[Http2Edge] = []
        fake.plays(self.accepts())

    def plays(self, *scripts: Script) -> None:
        self.fake.plays(*scripts)

    def accepts(self, initial_window: int = 65_535) -> Script:
        """Accept the CONNECT, and leave the tunnel to the test."""

        def play(connection: Connection) -> None:
            edge = self._edge(connection)
            edge.begin(initial_window)
            edge.accept()

        return play

    def does(self, *acts: object) -> Script:
        """Begin, then call each of ``acts`` with the edge."""

        def play(connection: Connection) -> None:
            edge = self._edge(connection)
            edge.begin()
            for act in acts:
                act(edge)  # type: ignore[operator]

        return play

    def edge(self, timeout_s: float = 5) -> Http2Edge:
        """Return the edge of the next connection with a script that ended without an error."""
        connection = self.fake.tunnel(timeout_s)
        return next(edge for edge in self.edges if edge.connection is connection)

    def _edge(self, connection: Connection) -> Http2Edge:
        self.edges.append(Http2Edge(connection))
        return self.edges[-1]


@contextmanager
def http2_gateway(authority: Authority) -> Iterator[Http2Gateway]:
    with FakeGateway(authority, transport="http2") as fake:
        yield Http2Gateway(fake)


@contextmanager
def reading(edge: Http2Edge) -> Iterator[None]:
    """Make the edge read in the background while the context is active."""

    def read_on() -> None:
        while not edge.is_over:
            try:
                edge.read()
            except OSError:
                return

    reader = gevent.Greenlet.spawn(read_on)
    try:
        yield
    finally:
        reader.kill()
