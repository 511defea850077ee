"""Listening sockets that this process inherited: from systemd (sd_listen_fds(3)) or in an upgrade.

An address identifies a socket. A name only shows its origin: our own sockets, which systemd stores from one process to
the next (sd_notify(3)), or a ``.socket`` unit, on behalf of which systemd itself listens.
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
"""First descriptor that systemd passes."""
OURS: Final = "pomagent@"
"""Prefix of the names under which systemd stores our sockets."""
MAX_NAME: Final = 255
"""Maximum length of a name in systemd's store. Only printable ASCII without the colon is allowed."""
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


@dataclass(slots=True)
class Inherited:
    """One inherited socket, which may turn out to be unusable."""

    sock: socket.socket
    name: str

    @property
    def is_from_unit(self) -> bool:
        """Whether a ``.socket`` unit listens there, so that neither the stored socket nor the address is ours."""
        return not self.name.startswith(OURS)

    @property
    def address(self) -> str:
        """The listen address, empty if the socket does not listen, or not for streams."""
        with suppress(OSError, ValueError):
            if self.sock.type == socket.SOCK_STREAM and self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return _address(self.sock)
        return ""

    def listens_on(self, listen: ListenAddress) -> bool:
        """Return whether a client that connects to ``listen`` reaches this socket."""
        if self.address != canonical(listen):
            return False
        return not isinstance(listen, UnixAddress) or _is_socket(listen.path)


def from_systemd(environ: MutableMapping[str, str]) -> list[Inherited]:
    """Return the sockets that systemd has passed to this process, and hide its variables from child processes."""
    pid, count, names = (environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    name_list = names.split(":")
    inherited = []
    for index in range(int(count)):
        with suppress(OSError):  # not a socket, or not open
            os.set_inheritable(FIRST_FD + index, False)
            sock = socket.socket(fileno=FIRST_FD + index)
            inherited.append(Inherited(sock, name_list[index] if index < len(name_list) else ""))
    return inherited


def store_name(key: ListenKey) -> str:
    """Return a unique, readable name for a listener's socket in systemd's store."""
    address, route = key
    text = "@".join(filter(None, (quote(address, safe="/[]:"), route)))
    name = OURS + text.replace(":", ",")
    return name if len(name) <= MAX_NAME else OURS + hashlib.sha256(name.encode()).hexdigest()


def canonical(listen: ListenAddress) -> str:
    """Return one text for all ways to write an address."""
    if isinstance(listen, UnixAddress):
        return str(listen)
    return str(HostPort(str(ipaddress.ip_address(listen.host)), listen.port))


def _address(sock: socket.socket) -> str:
    """Return a socket's address. Raises OSError, or ValueError for a kind that no route can have."""
    name = sock.getsockname()
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return canonical(HostPort(name[0], name[1]))
    if sock.family == socket.AF_UNIX and name and isinstance(name, str):
        return canonical(UnixAddress(Path(name)))
    raise ValueError(f"no route can listen on {sock.family!r}")


def _is_socket(path: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISSOCK(path.lstat().st_mode)
    return False
