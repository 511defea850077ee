"""The peer of an HTTP/2 connection without a network: the ``h2`` library, and frames that it would never send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import h2.config
import h2.connection
from h2.events import Event

from pomagent.protocol.http2.connection import Connection
from pomagent.protocol.http2.frames import Kind, frame, settings

DESTINATION = "db.example.test:5432"
OK = ((":status", "200"), ("x-request-id", "h2-1"))
GREETING = settings({})
"""The shortest start that a gateway may make."""
ACCEPTED = frame(Kind.HEADERS, 0x4, 1, b"\x88")
""":status 200 from HPACK's static table."""
CHUNK = 65536


def opened(headers: Mapping[str, str] | None = None) -> Connection:
    """Return a connection that has sent its CONNECT, with an empty ``outgoing``."""
    connection = Connection()
    connection.open(DESTINATION, headers or {})
    connection.outgoing.clear()
    return connection


def accepted() -> Connection:
    """Return a connection with an accepted CONNECT: a tunnel."""
    connection = opened()
    assert feed(connection, GREETING + ACCEPTED) == b""
    assert connection.is_tunnel
    connection.outgoing.clear()
    return connection


def feed(connection: Connection, data: bytes, piece: int = CHUNK) -> bytes:
    """Make the connection receive ``data`` in pieces, consume all of it, and return the tunnel's bytes."""
    buffer = memoryview(bytearray(piece))
    payload = bytearray()
    for start in range(0, len(data), piece):
        part = data[start : start + piece]
        buffer[: len(part)] = part
        kept = connection.receive(buffer, len(part))
        payload += buffer[:kept]
        connection.taken(kept)
    return bytes(payload)


class Peer:
    """A server of the ``h2`` library, joined to a connection of the agent."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.h2.initiate_connection()
        self.events: list[Event] = []
        self.payload = bytearray()
        """Bytes of the tunnel that the agent has received."""

    def exchange(self, piece: int = CHUNK) -> None:
        """Exchange frames until neither side has any to send."""
        while self.connection.outgoing or self.h2._data_to_send:
            sent = bytes(self.connection.outgoing)
            self.connection.outgoing.clear()
            self.events += self.h2.receive_data(sent)
            self.payload += feed(self.connection, self.h2.data_to_send(), piece)

    def accept(self, headers: Sequence[tuple[str, str]] = OK, *, end: bool = False) -> None:
        self.h2.send_headers(1, list(headers), end_stream=end)
        self.exchange()

    def seen(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]
