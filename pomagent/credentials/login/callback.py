"""Listens on loopback for the redirected browser of a login, and reads an address that the user pastes."""

from __future__ import annotations

import os
import secrets
import select
import selectors
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from pydantic import SecretStr

from pomagent.credentials.login import page
from pomagent.credentials.login.originator import originators
from pomagent.credentials.login.redirect import LISTEN_HOST, NONCE_BYTES, ForgedCallback, NotTheCallback, Redirect
from pomagent.errors import CredentialError
from pomagent.runtime.deadline import Deadline
from pomagent.transport.peer_uid import user_of
from pomagent.transport.sock_diag import open_if_possible

MAX_HEAD_BYTES = 80 * 1024
"""Maximum bytes of a request's head: a token of 64 KiB and the browser's other headers."""
MAX_CONNECTIONS = 16
"""Maximum open connections. Browsers open some ahead of need. Above it, the oldest one is closed."""
BACKLOG = 128
"""Maximum connections not accepted yet, so that a browser that opens many at once is not refused."""
MAX_PASTED_BYTES = 80 * 1024
"""Maximum bytes of pasted text: a token of 64 KiB and its address."""
ACCEPT_PAUSE_S = 0.05
"""Pause in seconds after a failed accept, which may lack descriptors."""
SEND_TIMEOUT_S = 2.0
"""Maximum seconds to send a page of 2 KiB over loopback."""

OnForgery = Callable[[str], None]
"""Called with the source and the fault of a token that came without this login's nonce, or from another user."""
OnBadPaste = Callable[[str], None]
"""Called with the reason why a pasted line was rejected."""


CANCELLED = "the login was cancelled"


class Cancelled(CredentialError):
    """The login was cancelled, because the program ends."""


class CallbackServer:
    """A context manager that listens until its end. One thread uses it, and any thread may ``cancel``."""

    def __init__(self, port: int, on_forgery: OnForgery, environ: Mapping[str, str] = os.environ) -> None:
        """Listen on ``port``, where 0 is any free one. Raises CredentialError."""
        self._users = originators(environ)
        self._on_forgery = on_forgery
        self._on_bad_paste: OnBadPaste = lambda _: None
        try:
            self._listener = socket.create_server((LISTEN_HOST, port), backlog=BACKLOG)
        except (OSError, OverflowError) as error:
            cause = (getattr(error, "strerror", None) or str(error)).lower()
            where = f"{LISTEN_HOST}:{port}"
            raise CredentialError(f"choose another --callback-port; cannot listen on {where}: {cause}") from error
        self._listener.setblocking(False)
        self._diag = open_if_possible()
        self.redirect = Redirect(self._listener.getsockname()[1], secrets.token_urlsafe(NONCE_BYTES))
        self._heads: dict[socket.socket, bytearray] = {}
        self._pasted = bytearray()
        self._selector = selectors.DefaultSelector()
        self._cancel_writer, self._cancel_reader = socket.socketpair()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._cancel_reader, selectors.EVENT_READ, self._raise_cancelled)
        self._token: SecretStr | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        for sock in [self._listener, self._cancel_reader, self._cancel_writer, *self._heads]:
            sock.close()
        if self._diag is not None:
            self._diag.close()

    def cancel(self) -> None:
        """Make ``wait`` raise Cancelled."""
        with suppress(OSError):
            self._cancel_writer.send(b"x")

    def take_pastes(self, descriptor: int, on_bad_paste: OnBadPaste) -> None:
        """Also read the address from a descriptor where the user pastes it, such as over SSH."""
        self._on_bad_paste = on_bad_paste
        with suppress(OSError):  # a file or /dev/null, from which no paste can come
            self._selector.register(descriptor, selectors.EVENT_READ, self._read_paste)

    def wait(self, deadline: Deadline) -> SecretStr | None:
        """Return the token from the browser or a paste, or None at the deadline. Blocks. Raises Cancelled."""
        while self._token is None and not deadline.is_over:
            for key, _ in self._selector.select(deadline.remaining_s):
                if self._token is None:
                    key.data(key.fileobj)
        return self._token

    # --- events of the selector -----------------------------------------------------------------------------------

    def _raise_cancelled(self, _: object) -> None:
        raise Cancelled(CANCELLED)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:  # such as for lack of descriptors: pause instead of spinning
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
            token = self.redirect.token_in(target)
            self._check_user(sock)
            self._token = token
        except ForgedCallback as error:
            with suppress(OSError):
                host, port = sock.getpeername()
                self._on_forgery(f"{error}, from {host}:{port}")
            self._send(sock, "403 Forbidden", "text/plain", page.NOT_THIS_LOGIN)
        except NotTheCallback:  # a browser also requests icons
            self._send(sock, "404 Not Found", "text/plain", page.NOT_THIS_LOGIN)
        else:
            self._send(sock, page.SIGNED_IN_STATUS, "text/html", page.SIGNED_IN)

    def _check_user(self, sock: socket.socket) -> None:
        """Check that the login's own user brings the token. Raises ForgedCallback.

        The nonce proves nothing: the browser's command line, which every user can read, leads to it.
        """
        uid = user_of(sock, self._diag)
        if uid is None:
            raise ForgedCallback("the kernel does not report which user brought the token; paste the address instead")
        if uid not in self._users:
            raise ForgedCallback(f"user {uid} brought the token, not the user who began the login")

    def _send(self, sock: socket.socket, status: str, kind: str, text: str) -> None:
        body = text.encode()
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)), "Connection": "close"}
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in (page.HEADERS | headers).items())]
        with suppress(OSError):  # the browser has disconnected
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
