"""The other side of our HTTP/2 without a network: the ``h2`` library, and frames that it would never send."""

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
"""The least with which a gateway may begin."""
ACCEPTED = frame(Kind.HEADERS, 0x4, 1, b"\x88")
""":status 200, by HPACK's static table."""
CHUNK = 65536


def opened(headers: Mapping[str, str] | None = None) -> Connection:
    """A connection whose CONNECT is under way; what it said for that is gone from ``outgoing``."""
    connection = Connection()
    connection.open(DESTINATION, headers or {})
    connection.outgoing.clear()
    return connection


def accepted() -> Connection:
    """The same with the answer: a tunnel."""
    connection = opened()
    assert feed(connection, GREETING + ACCEPTED) == b""
    assert connection.is_tunnel
    connection.outgoing.clear()
    return connection


def feed(connection: Connection, data: bytes, piece: int = CHUNK) -> bytes:
    """Have it receive the bytes in pieces, as if read by somebody who takes all; what of them is the tunnel's."""
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
    """A server of the ``h2`` library, joined to one of our connections."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.h2.initiate_connection()
        self.events: list[Event] = []
        self.payload = bytearray()
        """What our side has received of the tunnel."""

    def exchange(self, piece: int = CHUNK) -> None:
        """Carry what both sides have to say until they are silent."""
        while self.connection.outgoing or self.h2._data_to_send:
            said = bytes(self.connection.outgoing)
            self.connection.outgoing.clear()
            self.events += self.h2.receive_data(said)
            self.payload += feed(self.connection, self.h2.data_to_send(), piece)

    def accept(self, headers: Sequence[tuple[str, str]] = OK, *, end: bool = False) -> None:
        self.h2.send_headers(1, list(headers), end_stream=end)
        self.exchange()

    def seen(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]
