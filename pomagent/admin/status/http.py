"""Serves one HTTP request per connection (RFC 9112), strictly and within bounds, with h11 as the parser."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote

import h11

MAX_HEAD_BYTES = 16 * 1024
"""Maximum bytes of request line and headers. Browsers send 1 KiB. A request with a body is rejected."""
READ_BYTES = 4096
MAX_FIELDS = 16
"""Maximum fields in a query."""
MAX_UNREAD_BYTES = 64 * 1024
"""Maximum bytes read and dropped after the response. Closing with unread bytes sends a reset, which can destroy the
response on its way to the client."""
TEXT = "text/plain; charset=utf-8"
METHODS = ("GET", "HEAD")
SAME_SITE = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site in requests of the status page itself, or after the address was typed."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request's head."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    """Values by lower-case name. The values of a repeated header are joined by commas."""

    @property
    def host(self) -> str:
        """The Host header, with or without a port, or empty if absent (HTTP/1.0)."""
        return self.headers.get("host", "")

    @property
    def has_body(self) -> bool:
        return self.headers.get("content-length", "0") != "0" or "transfer-encoding" in self.headers


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A complete response."""

    status: HTTPStatus
    body: bytes
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


Responder = Callable[[HttpRequest], HttpResponse]


def text_response(status: HTTPStatus, text: str) -> HttpResponse:
    return HttpResponse(status, text.encode())


def serve_request(sock: Any, respond: Responder) -> None:
    """Serve the connection's first and only request. Blocks while the client does. Raises OSError."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    request = None
    try:
        request = _read(sock, connection)
        if request is None:
            return
        response = respond(request)
    except h11.RemoteProtocolError as error:
        status = HTTPStatus(error.error_status_hint)
        response = text_response(status, f"{status.phrase.lower()}: this server cannot parse the request\n")
    sock.sendall(_serialized(connection, response, has_body=request is None or request.method != "HEAD"))
    _close_gracefully(sock)


def is_own_name(host: str, own_names: frozenset[str]) -> bool:
    """Whether a Host header names this machine by address, as localhost, or by host name.

    A website can make its own name resolve to our loopback address (DNS rebinding), but it cannot forge an address.
    """
    name = _without_port(host).rstrip(".").lower()
    if name in own_names or name == "localhost" or name.endswith(".localhost"):
        return True
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False


def is_cross_site(request: HttpRequest) -> bool:
    """Whether another website sent the request through a browser (W3C Fetch Metadata, RFC 6454 §7).

    Requests of the status page itself and followed links are not cross-site. Other programs than browsers do not send
    these headers.
    """
    headers = request.headers
    if "origin" in headers and headers["origin"].partition("://")[2].lower() != request.host.lower():
        return True
    is_followed_link = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    return headers.get("sec-fetch-site", "none") not in SAME_SITE and not is_followed_link


def _without_port(host: str) -> str:
    if host.startswith("["):
        address, _, rest = host[1:].partition("]")
        return address if not rest or rest.startswith(":") else host
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _read(sock: Any, connection: h11.Connection) -> HttpRequest | None:
    """Return the request, or None if the client closed the connection. Raises h11.RemoteProtocolError."""
    has_line = False
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE and not has_line:
                raise h11.RemoteProtocolError(str(error), HTTPStatus.REQUEST_URI_TOO_LONG) from error
            raise
        if event is h11.NEED_DATA:
            data = sock.recv(READ_BYTES)
            has_line = has_line or b"\n" in data
            connection.receive_data(data)
        elif isinstance(event, h11.Request):
            return _request(event)
        else:
            return None


def _request(event: h11.Request) -> HttpRequest:
    path, _, query = event.target.decode("ascii", "replace").partition("?")
    headers: dict[str, str] = {}
    for name, value in event.headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return HttpRequest(event.method.decode("ascii"), unquote(path), _fields(query), headers)


def _fields(query: str) -> dict[str, str]:
    """Return the query's fields, or None if there are more than MAX_FIELDS."""
    try:
        return dict(parse_qsl(query, max_num_fields=MAX_FIELDS))
    except ValueError:
        return {}


def _serialized(connection: h11.Connection, response: HttpResponse, *, has_body: bool) -> bytes:
    own = {
        "Content-Type": response.content_type, "Content-Length": str(len(response.body)), "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin", "Connection": "close",
    }  # fmt: skip
    headers = list((own | dict(response.headers)).items())
    head = connection.send(h11.Response(status_code=response.status, reason=response.status.phrase, headers=headers))
    return (head or b"") + (response.body if has_body else b"")


def _close_gracefully(sock: Any) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        left = MAX_UNREAD_BYTES
        while left > 0 and (data := sock.recv(READ_BYTES)):
            left -= len(data)
