"""The CONNECT exchange over HTTP/1.1 (RFC 9110 §9.3.6, RFC 9112; wire contract §1 and §3), without I/O.

h11 makes the request and reads the answer, but for the common one: an accepted tunnel whose head comes in one piece. To
recognise that costs a tenth of what h11 takes (measured); all that is not exactly that is left to h11.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import h11

from pomagent import __version__

MAX_HEAD_BYTES = 64 * 1024
"""Of the answer's head. Pomerium's is below 1 KiB; proxies in between add cookies and policies."""
MAX_BODY_BYTES = 16 * 1024
"""Of a refusal's body that is kept for its explanation."""
MAX_DETAIL_CHARACTERS = 200
"""Of that explanation in a message: it comes from outside and ends up in a log line."""
_ACCEPTED = re.compile(
    rb"HTTP/1\.1 (2[0-9]{2})(?: [\t \x21-\x7e\x80-\xff]*)?\r\n"
    rb"((?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t \x21-\x7e\x80-\xff]*\r\n)*)\r\n"
)
"""A whole head of a 2xx without a folded line or a bare line feed (RFC 9112 §4 and §5)."""
_OF_A_BODY = frozenset({"content-length", "transfer-encoding"})
"""Headers of which h11 knows what they mean, and when they are malformed."""


class MalformedAnswer(ValueError):
    """The gateway's bytes are not an HTTP/1.1 answer to a CONNECT, or are over a limit."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gateway answered, complete as far as anybody needs it."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of repeated headers the first."""
    body: bytes = b""
    early: bytes = b""
    """What followed an accepted CONNECT: already the tunnel's payload."""

    @property
    def is_tunnel(self) -> bool:
        return 200 <= self.status < 300 and not self.looks_terminated

    @property
    def looks_terminated(self) -> bool:
        """A 2xx with a body: an HTTP balancer answered in the gateway's place (wire contract §3.2)."""
        return 200 <= self.status < 300 and (
            "content-type" in self.headers or self.headers.get("content-length", "0").strip() != "0"
        )

    @property
    def request_id(self) -> str:
        """The join key to the gateway's own log."""
        return self.headers.get("x-request-id", "")

    @property
    def from_authorizer(self) -> bool:
        """Whether the policy engine answered, not the proxy itself (wire contract §3.2)."""
        return "x-pomerium-intercepted-response" in self.headers or "error" in self._explained

    @property
    def detail(self) -> str:
        """The gateway's explanation in a few words, from a JSON body only: HTML is not for people's terminals."""
        words = (self._explained.get(key) for key in ("statusText", "error"))
        said = next((word for word in words if isinstance(word, str) and word), "")
        return "".join(c for c in said if c.isprintable())[:MAX_DETAIL_CHARACTERS]

    @property
    def retry_after_s(self) -> float:
        """Seconds asked for by Retry-After, 0 where it gives none or a date."""
        value = self.headers.get("retry-after", "")
        return float(value) if value.isascii() and value.isdigit() and len(value) < 6 else 0.0

    @property
    def _explained(self) -> dict[str, object]:
        try:
            said = json.loads(self.body)
        except (ValueError, RecursionError):  # not JSON; nested deeper than anything that explains
            return {}
        return said if isinstance(said, dict) else {}


class Request:
    """A CONNECT; made once, it serves for many tunnels."""

    def __init__(self, destination: str, headers: Mapping[str, str]) -> None:
        """``headers`` carry the credential; ``destination`` is the route's exact ``host:port`` (wire contract §1.2).

        Raises ValueError for what a request cannot carry.
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
        """A connection over which it was sent: the answer comes next."""
        connection = self._connection()
        connection.send(self._event)
        connection.send(h11.EndOfMessage())
        return connection

    @staticmethod
    def _connection() -> h11.Connection:
        return h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)


class Exchange:
    """One CONNECT and its answer: bytes out, bytes in, then an ``Answer``."""

    def __init__(self, request: Request) -> None:
        self.request = request.text
        self._sent = request.sent
        self._http: h11.Connection | None = None
        """Reads the answer that was not recognised at once."""
        self._head: h11.Response | None = None
        self._body = bytearray()

    def receive(self, data: bytes) -> Answer | None:
        """Take what arrived (``b""`` is the end of the stream); return the answer once it is complete.

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
                return self.answer_so_far  # a refusal whose body breaks off is a refusal
            raise MalformedAnswer(str(error)[:MAX_DETAIL_CHARACTERS]) from error

    @property
    def complete(self) -> Answer | None:
        """An answer that is complete without another byte: there is none over HTTP/1.1."""
        return None

    @property
    def answer_so_far(self) -> Answer | None:
        """The answer if its head is known, even when the body is not complete."""
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
    """The answer if ``data`` begins with all of a 2xx that says nothing of a body; None leaves it to h11."""
    match = _ACCEPTED.match(data)
    if match is None:
        return None
    headers: dict[str, str] = {}
    for line in match[2].decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        headers.setdefault(name.lower(), value.strip(" \t"))
    return None if _OF_A_BODY & headers.keys() else Answer(int(match[1]), headers, early=data[match.end() :])
