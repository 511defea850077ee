"""Answers requests on the control socket."""

from __future__ import annotations

import grp
import json
import os
import pwd
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import gevent
from gevent import socket as gevent_socket
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from pomagent.admin.control.audit import loggable_arguments
from pomagent.admin.json_object import JsonObject
from pomagent.errors import PomagentError
from pomagent.listeners.bind import bind, file_of, how_lost
from pomagent.listeners.inherited import Inherited, store_name
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.threads import Threads
from pomagent.runtime.unix_peer import Peer, peer_of
from pomagent.settings import ListenKey, UnixAddress

GROUP = "pomagent"
"""Members of this group may use the socket, as root and the agent's own user may."""
MODE = 0o660
MAX_CONNECTIONS = 32
"""Maximum simultaneous connections. Commands and scripts need few."""

MAX_BODY_BYTES = 128 * 1024
"""Maximum bytes of a request's body: a token of 64 KiB and its names."""
READ_TIMEOUT_S = 10.0
"""Maximum seconds between two reads of a request. A command has all of it ready when it connects."""

Handler = Callable[[], JsonObject]
"""Carries out a request and returns the answer. May block its greenlet."""
BodyHandler = Callable[[JsonObject], JsonObject]
"""Carries out a request with a JSON object as its body and returns the answer. Raises Declined."""


class Declined(PomagentError):
    """The agent cannot carry out a request in its present state. The message goes to the client."""


class ControlServer:
    """Serves the control socket: ``GET`` shows, ``POST`` changes. Each change is logged with the peer's uid and pid."""

    def __init__(
        self, path: Path, get_handlers: Mapping[str, Handler], post_handlers: Mapping[str, Handler], log: Logger,
        body_handlers: Mapping[str, BodyHandler] | None = None,
    ) -> None:  # fmt: skip
        """Handlers are keyed by URL path. ``body_handlers`` serve POST requests with a JSON object as their body."""
        self._body_handlers = dict(body_handlers or {})
        self.path = path
        self._handlers = {("GET", url): handler for url, handler in get_handlers.items()}
        self._handlers |= {("POST", url): handler for url, handler in post_handlers.items()}
        self._log = log
        self._threads = Threads(1)
        self._server: WSGIServer | None = None
        self._file: tuple[int, int] | None = None

    @property
    def shared(self) -> list[Inherited]:
        """The listening socket, if open, to hand to a new process."""
        return [Inherited(self._server.socket, store_name(key_of(self.path)))] if self._server else []

    def start(self, inherited: Inherited | None = None) -> None:
        """Listen, on the inherited socket if there is one. Raises BindError."""
        self._serve(inherited.sock if inherited is not None else self._bind())

    def _serve(self, sock: socket.socket) -> None:
        self._file = file_of(UnixAddress(self.path))
        self._server = WSGIServer(
            gevent_socket.socket(fileno=sock.detach()), self._answer, spawn=Pool(MAX_CONNECTIONS),
            handler_class=_Handler, log=None, error_log=None,
        )  # fmt: skip
        self._server.start()

    def mend(self) -> None:
        """Bind the socket again if its file was removed or replaced, or if ``start`` could not. Blocks for a moment.

        Requests under way are still answered. Raises BindError.
        """
        lost = how_lost(UnixAddress(self.path), self._file) if self._server is not None else "it was never bound"
        if not lost:
            return
        sock = self._bind()
        self._log.warning(events.LISTENER_LOST, listen=f"unix:{self.path}", error=lost)
        if self._server is not None:
            self._server.close()
        self._serve(sock)

    def _bind(self) -> socket.socket:
        with suppress(OSError):
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        return bind(UnixAddress(self.path, MODE, group=GROUP if _may_give_to(GROUP) else ""))

    def leave(self) -> None:
        """Stop accepting, and leave the socket to the new process. Requests under way are still answered."""
        if self._server is not None:
            self._server.close()
            self._file = None

    def close(self) -> None:
        """Stop answering. Blocks for 1 s at most."""
        if self._server is None:
            return
        self._server.stop(timeout=1)
        if self._file is not None and file_of(UnixAddress(self.path)) == self._file:
            self.path.unlink()
        self._server = None

    def _answer(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, answer = self._act(environ)
        body = json.dumps(answer).encode()
        start_response(
            f"{status.value} {status.phrase}",
            [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
        )
        return [body]

    def _act(self, environ: Mapping[str, Any]) -> tuple[HTTPStatus, JsonObject]:
        method, url, peer = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["pomagent.peer"]
        if not self._is_permitted(peer):
            self._log.warning(events.CONTROL_REFUSED, uid=peer.uid, pid=peer.pid, command=url)
            return HTTPStatus.FORBIDDEN, {"error": f"only root, the agent's user and the group {GROUP} may do this"}
        handler, arguments = self._handlers.get((method, url)), dict[str, Any]()
        if method == "POST" and url in self._body_handlers:
            body = _body(environ)
            if isinstance(body, HTTPStatus):
                return body, {"error": f"expected a JSON object of at most {MAX_BODY_BYTES} bytes"}
            handler, arguments = partial(self._body_handlers[url], body), loggable_arguments(body)
        if handler is None:
            return HTTPStatus.NOT_FOUND, {"error": f"the agent does not know {method} {url}; is the command newer?"}
        if method == "POST":
            logged = {"arguments": arguments} if arguments else {}
            self._log.info(events.CONTROL_CHANGED, uid=peer.uid, pid=peer.pid, command=url.strip("/"), **logged)
        try:
            return HTTPStatus.OK, handler()
        except Declined as error:
            return HTTPStatus.CONFLICT, {"error": str(error)}
        except Exception:  # noqa: BLE001 - the crash boundary of this request: the client still gets an answer
            gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())
            return HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"{method} {url} met a bug in the agent; see its log"}

    def _is_permitted(self, peer: Peer) -> bool:
        """Whether the peer is root, the agent's own user, or in the group, as the socket's mode already requires."""
        return peer.uid in (0, os.geteuid()) or self._threads.call(_is_in_group, peer)


def key_of(path: Path) -> ListenKey:
    """Return the key of the control socket among those handed to a new process. No route has such a name."""
    return f"unix:{path}", "@control"


class _Handler(WSGIHandler):  # type: ignore[misc]  # gevent has no types
    """Adds the peer to the WSGI environment and limits how long a read may take."""

    def handle(self) -> None:
        self.socket.settimeout(READ_TIMEOUT_S)
        super().handle()

    def read_request(self, raw_requestline: str) -> bool:
        """Raise ValueError, which becomes a 400. For other errors gevent prints a traceback on standard error."""
        try:
            return bool(super().read_request(raw_requestline))
        except OSError as error:
            raise ValueError("the request is incomplete") from error

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        environ["pomagent.peer"] = peer_of(self.socket)
        return environ


def _body(environ: Mapping[str, Any]) -> JsonObject | HTTPStatus:
    """Return the JSON object in a request's body, or the status of the error. The error repeats nothing of the body."""
    length = str(environ.get("CONTENT_LENGTH") or "")
    if not (length.isascii() and length.isdigit()):
        return HTTPStatus.LENGTH_REQUIRED
    if len(length) > 9 or int(length) > MAX_BODY_BYTES:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    content = None
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(environ["wsgi.input"].read(int(length)))
    return content if isinstance(content, dict) else HTTPStatus.BAD_REQUEST


def _is_in_group(peer: Peer) -> bool:
    """Whether the peer's user is a member of the group. Blocks: this may query a directory service."""
    try:
        group = grp.getgrnam(GROUP)
        return peer.gid == group.gr_gid or pwd.getpwuid(peer.uid).pw_name in group.gr_mem
    except KeyError:
        return False


def _may_give_to(group: str) -> bool:
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        return False
    return os.geteuid() == 0 or gid in os.getgroups() or gid == os.getegid()
