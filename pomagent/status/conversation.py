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
"""Of a request; browsers send 1 KiB."""
READ_BYTES = 4096
MAX_FIELDS = 16
MAX_LEFT_BYTES = 64 * 1024
"""Read and dropped after our answer: closing over unread bytes would be a reset, and cost the client the answer."""
TEXT = "text/plain; charset=utf-8"
METHODS = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks for."""

    method: str
    path: str
    query: Mapping[str, str]
    host: str
    """As the client named us, with or without a port; empty if it did not (HTTP/1.0)."""


@dataclass(frozen=True, slots=True)
class Page:
    """What they get."""

    status: HTTPStatus
    body: bytes
    kind: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Callable[[Request], Page]


def text_page(status: HTTPStatus, text: str) -> Page:
    return Page(status, text.encode())


def converse(sock: Any, answer: Answer) -> None:
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
        page = text_page(status, f"{status.phrase.lower()}: not a request that this server understands\n")
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


def _without_port(host: str) -> str:
    if host.startswith("["):
        address, _, rest = host[1:].partition("]")
        return address if not rest or rest.startswith(":") else host
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _read(sock: Any, connection: h11.Connection) -> Request | None:
    """The request, None if the client left. Raises h11.RemoteProtocolError."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(sock.recv(READ_BYTES))
        elif isinstance(event, h11.Request):
            return _request(event)
        else:
            return None


def _request(event: h11.Request) -> Request:
    path, _, query = event.target.decode("ascii", "replace").partition("?")
    host = next((value for name, value in event.headers if name == b"host"), b"")
    return Request(event.method.decode("ascii"), unquote(path), _fields(query), host.decode("latin-1"))


def _fields(query: str) -> dict[str, str]:
    """Of a form that is too large to be meant, none."""
    try:
        return dict(parse_qsl(query, max_num_fields=MAX_FIELDS))
    except ValueError:
        return {}


def _written(connection: h11.Connection, page: Page, *, has_body: bool) -> bytes:
    own = {
        "Content-Type": page.kind, "Content-Length": str(len(page.body)), "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff", "Connection": "close",
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
