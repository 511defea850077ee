"""The CONNECT exchange over HTTP/1.1 (RFC 9110 §9.3.6, RFC 9112, wire contract §1 and §3), without I/O.

h11 builds the request and parses answers, except for the common one: an accepted tunnel with its head in one
piece. Recognising that takes a tenth of h11's time (measured). Every other answer is left to h11.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import h11

from pomagent import __version__
from pomagent.runtime.printable import printable

MAX_HEAD_BYTES = 64 * 1024
"""Maximum bytes of an answer's head. Pomerium's is below 1 KiB. Proxies in between add cookies and policies."""
MAX_BODY_BYTES = 16 * 1024
"""Maximum bytes kept of a refusal's body, for its explanation."""
MAX_REQUEST_ID_CHARACTERS = 128
"""Maximum length of a gateway's request id: Envoy's are UUIDs of 36 characters."""
MAX_DETAIL_CHARACTERS = 200
"""Maximum characters of that explanation in a message: it comes from outside and ends up in a log line."""
_ACCEPTED = re.compile(
    rb"HTTP/1\.1 (2[0-9]{2})(?: [\t \x21-\x7e\x80-\xff]*)?\r\n"
    rb"((?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t \x21-\x7e\x80-\xff]*\r\n)*)\r\n"
)
"""Matches a complete 2xx head without folded lines and bare line feeds (RFC 9112 §4 and §5)."""
_BODY_HEADERS = frozenset({"content-length", "transfer-encoding"})
"""Headers that announce a body. Their syntax is left to h11."""


class MalformedAnswer(ValueError):
    """The gateway's bytes are not an HTTP/1.1 answer to a CONNECT, or are over a limit."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A gateway's answer, with as much of the body as the agent uses."""

    status: int
    headers: Mapping[str, str]
    """Values by lower-case name. The first value of a repeated header."""
    body: bytes = b""
    early: bytes = b""
    """Bytes that followed an accepted CONNECT: the tunnel's first payload."""

    @property
    def is_tunnel(self) -> bool:
        return 200 <= self.status < 300 and not self.looks_terminated

    @property
    def looks_terminated(self) -> bool:
        """Whether a 2xx has a body: an HTTP balancer answered in the gateway's place (wire contract §3.2)."""
        return 200 <= self.status < 300 and (
            "content-type" in self.headers or self.headers.get("content-length", "0").strip() != "0"
        )

    @property
    def request_id(self) -> str:
        """Identifies the request in the gateway's own log."""
        return printable(self.headers.get("x-request-id", ""), MAX_REQUEST_ID_CHARACTERS)

    @property
    def detail(self) -> str:
        """The gateway's short explanation, from a JSON body only. HTML is unreadable in a terminal."""
        words = (self.explained.get(key) for key in ("statusText", "error"))
        explanation = next((word for word in words if isinstance(word, str) and word), "")
        return printable(explanation, MAX_DETAIL_CHARACTERS)

    @property
    def retry_after_s(self) -> float:
        """Seconds by Retry-After. 0 without one, or if it is a date."""
        value = self.headers.get("retry-after", "")
        return float(value) if value.isascii() and value.isdigit() and len(value) < 6 else 0.0

    @property
    def explained(self) -> dict[str, object]:
        """The fields of a JSON body, empty for any other."""
        try:
            explained = json.loads(self.body)
        except (ValueError, RecursionError):  # not JSON, or nested too deeply
            return {}
        return explained if isinstance(explained, dict) else {}


class ConnectRequest:
    """A CONNECT request. One object serves many tunnels."""

    def __init__(self, destination: str, headers: Mapping[str, str]) -> None:
        """``headers`` carry the credential, ``destination`` is the route's exact ``host:port`` (wire contract §1.2).

        Raises ValueError for headers that a request cannot carry.
        """
        self.destination = destination
        self.headers = headers
        try:
            self._event = h11.Request(
                method="CONNECT",
                target=destination,
                headers=[
                    ("Host", destination),
                    ("User-Agent", f"pomagent/{__version__}"),
                    ("Accept", "application/json"),  # refusals explain themselves in JSON
                    *headers.items(),
                ],
            )
        except (h11.LocalProtocolError, UnicodeError):  # their messages quote the value, which may be a token
            raise ValueError(f"a request to {destination!r} cannot carry these headers: {', '.join(headers)}") from None
        self.text = self._connection().send(self._event) or b""

    def sent(self) -> h11.Connection:
        """Return a connection that has sent the request and expects the answer."""
        connection = self._connection()
        connection.send(self._event)
        connection.send(h11.EndOfMessage())
        return connection

    @staticmethod
    def _connection() -> h11.Connection:
        return h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)


class Exchange:
    """One CONNECT and its answer: bytes to send, bytes received, then an ``Answer``."""

    def __init__(self, request: ConnectRequest) -> None:
        self.request = request.text
        self._sent = request.sent
        self._http: h11.Connection | None = None
        """Parses an answer that ``accepted`` did not recognise."""
        self._head: h11.Response | None = None
        self._body = bytearray()

    def receive(self, data: bytes) -> Answer | None:
        """Process received bytes (``b""`` is the end of the stream), and return the answer once it is complete.

        Raises MalformedAnswer.
        """
        if self._http is None:
            answer = accepted(data)
            if answer is not None:
                return answer
            self._http = self._sent()
        try:
            self._http.receive_data(data)
            return self._advance(self._http)
        except h11.RemoteProtocolError as error:
            if self._head is not None:
                return self.answer_so_far  # a refusal with a truncated body is still a refusal
            raise MalformedAnswer(str(error)[:MAX_DETAIL_CHARACTERS]) from error

    @property
    def complete(self) -> Answer | None:
        """Always None over HTTP/1.1, where no answer completes without another byte."""
        return None

    @property
    def answer_so_far(self) -> Answer | None:
        """The answer if its head is complete, with the body so far."""
        if self._head is None or self._http is None:
            return None
        headers: dict[str, str] = {}
        for name, value in self._head.headers:
            headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        early = self._http.trailing_data[0] if 200 <= self._head.status_code < 300 else b""
        return Answer(self._head.status_code, headers, bytes(self._body), bytes(early))

    def _advance(self, http: h11.Connection) -> Answer | None:
        while True:
            event = http.next_event()
            if isinstance(event, h11.Response):
                self._head = event
                if 200 <= event.status_code < 300:
                    return self.answer_so_far
            elif isinstance(event, h11.Data):
                self._body += event.data[: MAX_BODY_BYTES - len(self._body)]
                if len(self._body) >= MAX_BODY_BYTES:
                    return self.answer_so_far
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed) or event is h11.PAUSED:
                return self.answer_so_far
            elif event is h11.NEED_DATA:
                return None


def accepted(data: bytes) -> Answer | None:
    """Return the answer if ``data`` begins with the complete head of a 2xx without a body. None leaves it to h11."""
    match = _ACCEPTED.match(data)
    if match is None:
        return None
    headers: dict[str, str] = {}
    for line in match[2].decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        headers.setdefault(name.lower(), value.strip(" \t"))
    return None if _BODY_HEADERS & headers.keys() else Answer(int(match[1]), headers, early=data[match.end() :])
