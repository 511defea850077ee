"""The CONNECT exchange over HTTP/2 (RFC 9113 §8.5), with the interface of ``connect.Exchange``."""

from __future__ import annotations

from collections.abc import Mapping

from pomagent import __version__
from pomagent.protocol.connect import MAX_BODY_BYTES, Answer
from pomagent.protocol.http2.connection import Connection


class Http2Exchange:
    """One CONNECT and its answer over a fresh connection."""

    request = b""
    """Empty, because the request is queued in the connection's ``outgoing``."""

    def __init__(self, connection: Connection, destination: str, headers: Mapping[str, str]) -> None:
        """Queue the request. Raises ValueError for headers that a request cannot carry."""
        self._connection = connection
        self._body = bytearray()
        own = {"user-agent": f"pomagent/{__version__}", "accept": "application/json"}
        connection.open(destination, {**own, **headers})

    def receive(self, data: bytes) -> Answer | None:
        """Process received bytes of the stream, and return the answer once it is complete."""
        self._body += data if self._connection.is_tunnel else data[: MAX_BODY_BYTES - len(self._body)]
        return self.complete

    @property
    def complete(self) -> Answer | None:
        """The answer once it is complete. Its head arrives without bytes of the stream."""
        connection = self._connection
        is_complete = connection.is_tunnel or connection.is_over or len(self._body) >= MAX_BODY_BYTES
        return self.answer_so_far if is_complete else None

    @property
    def answer_so_far(self) -> Answer | None:
        """The answer if its head is complete, with the body so far."""
        head = self._connection.head
        if head is None:
            return None
        is_tunnel = self._connection.is_tunnel
        body, early = (b"", bytes(self._body)) if is_tunnel else (bytes(self._body), b"")
        return Answer(head.status, head.headers, body, early)
