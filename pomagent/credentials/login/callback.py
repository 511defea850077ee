"""Listens on loopback for the browser that comes back from a login, and for an address that a person pastes."""

from __future__ import annotations

import os
import secrets
import select
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from pydantic import SecretStr

from pomagent.credentials.login import page
from pomagent.credentials.login.redirect import LISTEN_HOST, NONCE_BYTES, Forged, NotTheCallback, Redirect
from pomagent.errors import CredentialError
from pomagent.runtime.deadline import Deadline

MAX_HEAD_BYTES = 80 * 1024
"""Of a request: a token of 64 KiB and what a browser says beside it."""
MAX_CONNECTIONS = 16
"""Browsers open some ahead of need; above, the one that has been silent longest is closed."""
BACKLOG = 128
"""Not accepted yet: a browser that opens many at once must not have to knock twice."""
MAX_PASTED_BYTES = 80 * 1024
ACCEPT_PAUSE_S = 0.05
SEND_TIMEOUT_S = 2.0
"""For a page of 2 KiB over loopback."""

OnForgery = Callable[[str], None]
"""Told about a token that came without this login's nonce: from where, and what was wrong."""
OnBadPaste = Callable[[str], None]


class Cancelled(CredentialError):
    """The login was given up, because the program ends."""


class CallbackServer:
    """A context manager: listens from the beginning, closes at its end. One thread uses it; any may ``cancel``."""

    def __init__(self, port: int, on_forgery: OnForgery) -> None:
        """``port`` 0 is any. Raises CredentialError."""
        self._on_forgery = on_forgery
        self._on_bad_paste: OnBadPaste = lambda _: None
        try:
            self._listener = socket.create_server((LISTEN_HOST, port), backlog=BACKLOG)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise CredentialError(f"cannot listen on {LISTEN_HOST}:{port} for the browser: {why.lower()}") from error
        self._listener.setblocking(False)
        self.redirect = Redirect(self._listener.getsockname()[1], secrets.token_urlsafe(NONCE_BYTES))
        self._heads: dict[socket.socket, bytearray] = {}
        self._pasted = bytearray()
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ, self._give_up)
        self._token: SecretStr | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        for sock in [self._listener, self._woken, self._wake, *self._heads]:
            sock.close()

    def cancel(self) -> None:
        """Have ``wait`` raise Cancelled."""
        with suppress(OSError):
            self._wake.send(b"x")

    def take_pastes(self, descriptor: int, on_bad_paste: OnBadPaste) -> None:
        """Also take the address from a person who pastes it, such as over SSH."""
        self._on_bad_paste = on_bad_paste
        with suppress(OSError):  # a file or /dev/null, where nobody pastes anything
            self._selector.register(descriptor, selectors.EVENT_READ, self._read_paste)

    def wait(self, deadline: Deadline) -> SecretStr | None:
        """The token that the browser or the person brings; None if nobody did in time. Blocks. Raises Cancelled."""
        while self._token is None and not deadline.is_over:
            for key, _ in self._selector.select(deadline.remaining_s):
                if self._token is None:
                    key.data(key.fileobj)
        return self._token

    # --- what happens ---------------------------------------------------------------------------------------------

    def _give_up(self, _: object) -> None:
        raise Cancelled("the login was given up")

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:  # such as for want of descriptors: not in a tight loop
            select.select([], [], [], ACCEPT_PAUSE_S)
            return
        sock.setblocking(False)
        if len(self._heads) >= MAX_CONNECTIONS:
            self._close(next(iter(self._heads)))
        self._heads[sock] = bytearray()
        self._selector.register(sock, selectors.EVENT_READ, self._read)

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(64 * 1024)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        head = self._heads[sock]
        head += data
        if not data or len(head) > MAX_HEAD_BYTES:
            self._close(sock)
        elif b"\r\n\r\n" in head:
            self._answer(sock, bytes(head).partition(b"\r\n")[0])
            self._close(sock)

    def _answer(self, sock: socket.socket, request_line: bytes) -> None:
        method, _, rest = request_line.decode("latin-1").partition(" ")
        target = rest.rpartition(" ")[0]
        if method != "GET":
            self._send(sock, "405 Method Not Allowed", "text/plain", page.NOT_THIS_LOGIN)
            return
        try:
            self._token = self.redirect.token_in(target)
        except Forged as error:
            with suppress(OSError):
                host, port = sock.getpeername()
                self._on_forgery(f"{error}, from {host}:{port}")
            self._send(sock, "403 Forbidden", "text/plain", page.NOT_THIS_LOGIN)
        except NotTheCallback:  # a browser asks for icons, too
            self._send(sock, "404 Not Found", "text/plain", page.NOT_THIS_LOGIN)
        else:
            self._send(sock, page.SIGNED_IN_STATUS, "text/html", page.SIGNED_IN)

    def _send(self, sock: socket.socket, status: str, kind: str, text: str) -> None:
        body = text.encode()
        own = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)), "Connection": "close"}
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in (page.HEADERS | own).items())]
        with suppress(OSError):  # the browser has gone; it has brought what it brought
            sock.settimeout(SEND_TIMEOUT_S)
            sock.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def _close(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        del self._heads[sock]
        sock.close()

    def _read_paste(self, descriptor: int) -> None:
        data = os.read(descriptor, 64 * 1024)
        self._pasted += data
        if not data or len(self._pasted) > MAX_PASTED_BYTES:
            self._selector.unregister(descriptor)
        while b"\n" in self._pasted or (self._pasted and not data):
            line, _, rest = self._pasted.partition(b"\n")
            self._pasted = bytearray(rest)
            self._take_paste(line.decode(errors="replace").strip())

    def _take_paste(self, text: str) -> None:
        if not text or self._token is not None:
            return
        try:
            self._token = self.redirect.token_in(text)
        except NotTheCallback as error:
            self._on_bad_paste(str(error))
