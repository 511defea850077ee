"""One request on one connection (RFC 9112): read, answered, closed. Small, strict and bounded; h11 does the parsing."""

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
"""Of a request, its line included; browsers send 1 KiB. There is no limit for its body, since it may have none."""
READ_BYTES = 4096
MAX_FIELDS = 16
MAX_LEFT_BYTES = 64 * 1024
"""Read and dropped after our answer: closing over unread bytes would be a reset, and cost the client the answer."""
TEXT = "text/plain; charset=utf-8"
METHODS = ("GET", "HEAD")
OURS = frozenset({"same-origin", "none"})
"""What browsers say of a request's site if our own page asks, or a person who typed the address."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What somebody asks for."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case; the values of repeated headers with commas between them."""

    @property
    def host(self) -> str:
        """As the client named us, with or without a port; empty if it did not (HTTP/1.0)."""
        return self.headers.get("host", "")

    @property
    def has_body(self) -> bool:
        return self.headers.get("content-length", "0") != "0" or "transfer-encoding" in self.headers


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What they get."""

    status: HTTPStatus
    body: bytes
    kind: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


Responder = Callable[[HttpRequest], HttpResponse]


def text_response(status: HTTPStatus, text: str) -> HttpResponse:
    return HttpResponse(status, text.encode())


def serve_request(sock: Any, answer: Responder) -> None:
    """Serve a connection's first request; there is no second. Blocks as long as the client does. Raises OSError."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    request = None
    try:
        request = _read(sock, connection)
        if request is None:
            return
        page = answer(request)
    except h11.RemoteProtocolError as error:
        status = HTTPStatus(error.error_status_hint)
        page = text_response(status, f"{status.phrase.lower()}: not a request that this server understands\n")
    sock.sendall(_written(connection, page, has_body=request is None or request.method != "HEAD"))
    _let_go(sock)


def is_own_name(host: str, own_names: frozenset[str]) -> bool:
    """Whether a Host header names this machine: by address, as localhost, or by its own name.

    A page on the web can have its own name lead to our loopback address (DNS rebinding), but not an address.
    """
    name = _without_port(host).rstrip(".").lower()
    if name in own_names or name == "localhost" or name.endswith(".localhost"):
        return True
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False


def is_cross_site(request: HttpRequest) -> bool:
    """Whether another website asks, through somebody's browser (W3C Fetch Metadata; RFC 6454 §7).

    That is everything but our own page and a person who follows a link to us. What is no browser sends none of this.
    """
    said = request.headers
    if "origin" in said and said["origin"].partition("://")[2].lower() != request.host.lower():
        return True
    is_followed_link = (said.get("sec-fetch-mode"), said.get("sec-fetch-dest")) == ("navigate", "document")
    return said.get("sec-fetch-site", "none") not in OURS and not is_followed_link


def _without_port(host: str) -> str:
    if host.startswith("["):
        address, _, rest = host[1:].partition("]")
        return address if not rest or rest.startswith(":") else host
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _read(sock: Any, connection: h11.Connection) -> HttpRequest | None:
    """The request, None if the client left. Raises h11.RemoteProtocolError."""
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
    """Of a form that is too large to be meant, none."""
    try:
        return dict(parse_qsl(query, max_num_fields=MAX_FIELDS))
    except ValueError:
        return {}


def _written(connection: h11.Connection, page: HttpResponse, *, has_body: bool) -> bytes:
    own = {
        "Content-Type": page.kind, "Content-Length": str(len(page.body)), "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin", "Connection": "close",
    }  # fmt: skip
    headers = list((own | dict(page.headers)).items())
    head = connection.send(h11.Response(status_code=page.status, reason=page.status.phrase, headers=headers))
    return (head or b"") + (page.body if has_body else b"")


def _let_go(sock: Any) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        left = MAX_LEFT_BYTES
        while left > 0 and (data := sock.recv(READ_BYTES)):
            left -= len(data)
