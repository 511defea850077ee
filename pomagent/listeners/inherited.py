"""Listening sockets that another process opened for this one: passed by systemd, sd_listen_fds(3), or by an upgrade.

They are told apart by their addresses. A name says only whose they are: ours, which systemd keeps from one process to
the next (its store, sd_notify(3)), or a ``.socket`` unit's, which systemd itself listens on.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import stat
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from pomagent.settings import HostPort, ListenAddress, ListenKey, UnixAddress

FIRST_FD: Final = 3
"""Of those that systemd passes."""
OURS: Final = "pomagent@"
"""Begins the names under which systemd keeps our sockets."""
MAX_NAME: Final = 255
"""Of a socket in systemd's store; printable ASCII without the colon."""
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


@dataclass(slots=True)
class Inherited:
    """One socket that listens already, if it is of any use."""

    sock: socket.socket
    name: str

    @property
    def is_units(self) -> bool:
        """Whether a ``.socket`` unit listens there, so that neither the store nor the address is ours."""
        return not self.name.startswith(OURS)

    @property
    def address(self) -> str:
        """Where it listens; empty if it does not, or not for streams."""
        with suppress(OSError, ValueError):
            if self.sock.type == socket.SOCK_STREAM and self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return _address(self.sock)
        return ""

    def leads_to(self, listen: ListenAddress) -> bool:
        """Whether who connects to that address comes here."""
        if self.address != comparable(listen):
            return False
        return not isinstance(listen, UnixAddress) or _is_socket(listen.path)


def from_systemd(environ: MutableMapping[str, str]) -> list[Inherited]:
    """Take what systemd has passed to this process, and its variables out of the environment of those we start."""
    pid, count, names = (environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    called = names.split(":")
    taken = []
    for index in range(int(count)):
        with suppress(OSError):  # no socket, or not open
            os.set_inheritable(FIRST_FD + index, False)
            sock = socket.socket(fileno=FIRST_FD + index)
            taken.append(Inherited(sock, called[index] if index < len(called) else ""))
    return taken


def store_name(key: ListenKey) -> str:
    """The name of a listener's socket in systemd's store: another one for each address, and readable."""
    address, route = key
    text = "@".join(filter(None, (quote(address, safe="/[]:"), route)))
    name = OURS + text.replace(":", ",")
    return name if len(name) <= MAX_NAME else OURS + hashlib.sha256(name.encode()).hexdigest()


def comparable(listen: ListenAddress) -> str:
    """One text for all ways to write an address."""
    if isinstance(listen, UnixAddress):
        return str(listen)
    return str(HostPort(str(ipaddress.ip_address(listen.host)), listen.port))


def _address(sock: socket.socket) -> str:
    """Raises OSError, ValueError for a kind that no route can have."""
    name = sock.getsockname()
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return comparable(HostPort(name[0], name[1]))
    if sock.family == socket.AF_UNIX and name and isinstance(name, str):
        return comparable(UnixAddress(Path(name)))
    raise ValueError(f"{sock.family!r} is no family of ours")


def _is_socket(path: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISSOCK(path.lstat().st_mode)
    return False
