"""The agent's side of the control socket."""

from __future__ import annotations

import grp
import json
import os
import pwd
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
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
from pomagent.listeners.bind import bind, file_of
from pomagent.listeners.inherited import Inherited, store_name
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.threads import Threads
from pomagent.settings import ListenKey, UnixAddress

GROUP = "pomagent"
"""Whose members may use the socket, beside root and the agent's own user."""
MODE = 0o660
MAX_CONNECTIONS = 32
"""At a time: people and scripts, not traffic."""

MAX_BODY_BYTES = 128 * 1024
"""Of a request: a token of 64 KiB, and what it is for."""
READ_TIMEOUT_S = 10.0
"""Between two pieces of a request, which a command has ready before it connects."""

Handler = Callable[[], JsonObject]
"""Does what was asked and returns the answer. May block its greenlet."""
BodyHandler = Callable[[JsonObject], JsonObject]
"""The same, with what the request's body says. Raises Declined."""

_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, by the kernel's word."""

    pid: int
    uid: int
    gid: int


class Declined(PomagentError):
    """What was asked makes no sense to this agent; the message is for who asked."""


class ControlServer:
    """Answers on the control socket: ``GET`` shows, ``POST`` changes, and a change is logged with who asked for it."""

    def __init__(
        self, path: Path, get_handlers: Mapping[str, Handler], post_handlers: Mapping[str, Handler], log: Logger,
        body_handlers: Mapping[str, BodyHandler] | None = None,
    ) -> None:  # fmt: skip
        """All are keyed by the path of the URL; ``takes`` are changes with a JSON object as the request's body."""
        self._body_handlers = dict(body_handlers or {})
        self._path = path
        self._actions = {("GET", url): action for url, action in get_handlers.items()}
        self._actions |= {("POST", url): action for url, action in post_handlers.items()}
        self._log = log
        self._threads = Threads(1)
        self._server: WSGIServer | None = None
        self._file: tuple[int, int] | None = None

    @property
    def shared(self) -> list[Inherited]:
        """Its socket, if it has one, for a successor of this process."""
        return [Inherited(self._server.socket, store_name(key_of(self._path)))] if self._server else []

    def start(self, inherited: Inherited | None = None) -> None:
        """Listen, on a socket that another process has opened if there is one. Raises BindError."""
        sock = inherited.sock if inherited is not None else self._bind()
        self._file = file_of(UnixAddress(self._path))
        self._server = WSGIServer(
            gevent_socket.socket(fileno=sock.detach()), self._answer, spawn=Pool(MAX_CONNECTIONS),
            handler_class=_Handler, log=None, error_log=None,
        )  # fmt: skip
        self._server.start()

    def _bind(self) -> socket.socket:
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        return bind(UnixAddress(self._path, MODE, group=GROUP if _may_give_to(GROUP) else ""))

    def leave(self) -> None:
        """Listen no more: a successor goes on with the socket. What was asked is still answered."""
        if self._server is not None:
            self._server.close()
            self._file = None

    def close(self) -> None:
        """Stop answering. Blocks for a moment."""
        if self._server is None:
            return
        self._server.stop(timeout=1)
        if self._file is not None and file_of(UnixAddress(self._path)) == self._file:
            self._path.unlink()
        self._server = None

    def _answer(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, document = self._act(environ)
        body = json.dumps(document).encode()
        start_response(
            f"{status.value} {status.phrase}",
            [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
        )
        return [body]

    def _act(self, environ: Mapping[str, Any]) -> tuple[HTTPStatus, JsonObject]:
        method, url, peer = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["pomagent.peer"]
        if not self._may_steer(peer):
            self._log.warning(events.CONTROL_REFUSED, uid=peer.uid, pid=peer.pid, command=url)
            return HTTPStatus.FORBIDDEN, {"error": f"only root, the agent's user and members of {GROUP} may steer it"}
        action, asked = self._actions.get((method, url)), dict[str, Any]()
        if method == "POST" and url in self._body_handlers:
            body = _body(environ)
            if isinstance(body, HTTPStatus):
                return body, {"error": f"expected a JSON object of at most {MAX_BODY_BYTES} bytes"}
            action, asked = partial(self._body_handlers[url], body), loggable_arguments(body)
        if action is None:
            return HTTPStatus.NOT_FOUND, {"error": f"this agent knows no {method} {url}; is the command newer than it?"}
        if method == "POST":
            said = {"arguments": asked} if asked else {}
            self._log.info(events.CONTROL_CHANGED, uid=peer.uid, pid=peer.pid, command=url.strip("/"), **said)
        try:
            return HTTPStatus.OK, action()
        except Declined as error:
            return HTTPStatus.CONFLICT, {"error": str(error)}
        except Exception:  # noqa: BLE001 - the crash boundary of this request: whoever asked still gets an answer
            gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())
            return HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"{method} {url} met a bug of the agent; see its log"}

    def _may_steer(self, peer: Peer) -> bool:
        """Whether the peer is root, the agent's own user, or in the group; the socket's mode has asked that already."""
        return peer.uid in (0, os.geteuid()) or self._threads.call(_is_in_group, peer)


def key_of(path: Path) -> ListenKey:
    """Of its socket among all that one process hands to another: no route has such a name."""
    return f"unix:{path}", "@control"


class _Handler(WSGIHandler):  # type: ignore[misc]  # gevent has no types
    """Tells the application who asks, and waits for nobody for ever."""

    def handle(self) -> None:
        self.socket.settimeout(READ_TIMEOUT_S)
        super().handle()

    def read_request(self, raw_requestline: str) -> bool:
        """Raises ValueError, which is a 400; for anything else the library prints a traceback on standard error."""
        try:
            return bool(super().read_request(raw_requestline))
        except OSError as error:
            raise ValueError("the request stopped in the middle") from error

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        raw = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        environ["pomagent.peer"] = Peer(*_CREDENTIALS.unpack(raw))
        return environ


def _body(environ: Mapping[str, Any]) -> JsonObject | HTTPStatus:
    """The JSON object that came with a request, or what is wrong with it; nothing of it is repeated."""
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
    """Blocks: a directory service may be asked."""
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
