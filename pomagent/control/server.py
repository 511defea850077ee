"""The agent's side of the control socket."""

from __future__ import annotations

import grp
import json
import os
import pwd
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from gevent import socket as gevent_socket
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from pomagent import events
from pomagent.bind import bind, file_of
from pomagent.log import Logger
from pomagent.settings import UnixAddress

GROUP = "pomagent"
"""Whose members may use the socket, beside root and the agent's own user."""
MODE = 0o660
MAX_CONNECTIONS = 32
"""At a time: people and scripts, not traffic."""

Document = Mapping[str, Any]
Action = Callable[[], Document]
"""Does what was asked and returns the answer. May block its greenlet."""

_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, by the kernel's word."""

    pid: int
    uid: int
    gid: int


class ControlServer:
    """Answers on the control socket: ``GET`` shows, ``POST`` changes, and a change is logged with who asked for it."""

    def __init__(self, path: Path, shows: Mapping[str, Action], changes: Mapping[str, Action], log: Logger) -> None:
        """``shows`` and ``changes`` are keyed by the path of the URL."""
        self._path = path
        self._actions = {("GET", url): action for url, action in shows.items()}
        self._actions |= {("POST", url): action for url, action in changes.items()}
        self._log = log
        self._server: WSGIServer | None = None
        self._file: tuple[int, int] | None = None

    def start(self) -> None:
        """Listen. Raises BindError."""
        group = GROUP if _may_give_to(GROUP) else ""
        address = UnixAddress(self._path, MODE, group=group)
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        sock = bind(address)
        self._file = file_of(address)
        self._server = WSGIServer(
            gevent_socket.socket(fileno=sock.detach()), self._answer, spawn=Pool(MAX_CONNECTIONS),
            handler_class=_Handler, log=None, error_log=None,
        )  # fmt: skip
        self._server.start()

    def close(self) -> None:
        """Stop answering. Blocks for a moment."""
        if self._server is None:
            return
        self._server.stop(timeout=1)
        if file_of(UnixAddress(self._path)) == self._file:
            self._path.unlink()
        self._server = None

    def _answer(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, document = self._act(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["pomagent.peer"])
        body = json.dumps(document).encode()
        start_response(
            f"{status.value} {status.phrase}",
            [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
        )
        return [body]

    def _act(self, method: str, url: str, peer: Peer) -> tuple[HTTPStatus, Document]:
        if not _may_steer(peer):
            self._log.warning(events.CONTROL_REFUSED, uid=peer.uid, pid=peer.pid, command=url)
            return HTTPStatus.FORBIDDEN, {"error": f"only root, the agent's user and members of {GROUP} may steer it"}
        action = self._actions.get((method, url))
        if action is None:
            return HTTPStatus.NOT_FOUND, {"error": f"this agent knows no {method} {url}; is the command newer than it?"}
        if method == "POST":
            self._log.info(events.CONTROL_CHANGED, uid=peer.uid, pid=peer.pid, command=url.strip("/"))
        return HTTPStatus.OK, action()


class _Handler(WSGIHandler):  # type: ignore[misc]  # gevent has no types
    """Tells the application who asks."""

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        raw = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        environ["pomagent.peer"] = Peer(*_CREDENTIALS.unpack(raw))
        return environ


def _may_steer(peer: Peer) -> bool:
    """Whether the peer is root, the agent's own user, or in the group; the socket's mode has asked that already."""
    if peer.uid in (0, os.geteuid()):
        return True
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
