"""Sends the commands' requests over the control socket."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pomagent.config.default_paths import default_control_socket
from pomagent.config.toml import MAX_FILE_BYTES, parse_toml
from pomagent.errors import PomagentError
from pomagent.runtime.files import read_file
from pomagent.runtime.unix_peer import peer_of

TIMEOUT_S = 60.0
"""Maximum seconds for an answer: a reload reads and validates all files first."""
SERVICE_USER = "pomagent"
"""User of the packaged service. Its agent, root's and the caller's own are trusted with requests and tokens."""
VARIABLE = "POMAGENT_STATUS__CONTROL_SOCKET"


class ControlError(PomagentError):
    """The agent did not carry out the request."""


class NotRunning(ControlError):
    """No agent answers at the control socket."""


class NotPermitted(ControlError):
    """The socket's mode or the agent refuses this user, or the agent is another user's."""


def find_socket(config: Path, environ: Mapping[str, str]) -> Path:
    """Return the control socket of the agent that runs on ``config``, even if that file is invalid now.

    Raises NotRunning if no path can be derived.
    """
    named = environ.get(VARIABLE) or _named_in(config)
    path = config.absolute().parent / named if named else default_control_socket(environ)
    if path is None:
        raise NotRunning("set status.control_socket or XDG_RUNTIME_DIR: this user has no default control socket")
    return path


def ask(
    path: Path, method: str, url: str, body: Mapping[str, Any] | None = None, timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    """Send one request and return the JSON object in the answer. Blocks. Raises ControlError.

    Nothing is sent to a program of another user, which could collect tokens there.
    """
    content = None if body is None else json.dumps(body).encode()
    connection = _UnixConnection(path, timeout_s)
    try:
        connection.request(method, url, content)
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
    except PermissionError as error:
        raise NotPermitted(f"use sudo, or join the group pomagent: this user may not open {path}") from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotRunning(f"no agent answers at {path}; is it running, and on the same agent.toml?") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ControlError(f"no answer from the agent at {path}; see its log: {error}") from error
    finally:
        connection.close()
    if response.status == http.client.FORBIDDEN:
        raise NotPermitted(str(answer.get("error")))
    if response.status != http.client.OK:
        raise ControlError(str(answer.get("error")))
    return answer


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
        _check_owner(self._path, peer_of(self.sock).uid)


def _check_owner(path: Path, uid: int) -> None:
    """Check that the program at the socket may receive what this user sends. Blocks. Raises NotPermitted."""
    if uid in (0, os.geteuid()):
        return
    with suppress(KeyError):
        if uid == pwd.getpwnam(SERVICE_USER).pw_uid:
            return
    raise NotPermitted(
        f"nothing was sent to {path}: the program there runs as user {uid}, not as root, you or {SERVICE_USER}; "
        "if it is your agent, run the command as that user"
    )


def names_socket(config: Path, environ: Mapping[str, str]) -> bool:
    """Whether the result of ``find_socket`` is certain: the file can be read, or the variable is set."""
    return bool(environ.get(VARIABLE)) or _named_in(config) is not None


def _named_in(config: Path) -> str | None:
    """Return ``status.control_socket`` of the file: empty if not set, None if the file cannot be read."""
    with suppress(OSError, ValueError):
        table = parse_toml(read_file(config, limit=MAX_FILE_BYTES).content)[1].get("status")
        if isinstance(table, dict) and isinstance(named := table.get("control_socket"), str):
            return named
        return ""
    return None
