"""Local addresses: syntax, exposure and collisions."""

from __future__ import annotations

import os
from pathlib import Path

from pomagent.protocol.route_url import AddressError, is_ip, parse_host_port
from pomagent.settings import HostPort

UNIX_PREFIX = "unix:"
MAX_SOCKET_PATH = 107
"""Maximum bytes of a Unix socket's path: sun_path of unix(7) has 108, one of them for the NUL."""

_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104  # recognised, not bound


def parse_listen(text: str, directory: Path) -> HostPort | Path:
    """Return the address to listen on. A relative socket path starts from ``directory``. Raises AddressError."""
    if text.startswith(UNIX_PREFIX):
        return _socket_path(text.removeprefix(UNIX_PREFIX), directory)
    address = parse_host_port(text, lowest_port=0)
    if address.host == "localhost":
        return HostPort("127.0.0.1", address.port)
    if not is_ip(address.host):
        raise AddressError("is no local address; expected IP:PORT such as 127.0.0.1:5432, or unix:/PATH")
    return address


def is_loopback(address: HostPort | Path) -> bool:
    """Return whether only processes of this host can connect."""
    return isinstance(address, Path) or address.host == "::1" or address.host.startswith("127.")


class Listeners:
    """Addresses in use, each with its owner."""

    def __init__(self) -> None:
        self._exact: dict[HostPort | Path, str] = {}
        self._by_port: dict[tuple[bool, int], str] = {}
        self._wildcards: dict[tuple[bool, int], str] = {}

    def claim(self, address: HostPort | Path, owner: str) -> str:
        """Reserve the address for ``owner`` and return "", or return the owner of an equal or overlapping one."""
        if isinstance(address, Path):
            present = self._exact.get(address, "")
        elif address.port == 0:  # the kernel chooses a free port
            return ""
        else:
            family_and_port = (":" in address.host, address.port)
            others = self._by_port if address.host in _WILDCARDS else self._wildcards
            present = self._exact.get(address) or others.get(family_and_port, "")
            self._by_port.setdefault(family_and_port, owner)
            if address.host in _WILDCARDS:
                self._wildcards.setdefault(family_and_port, owner)
        self._exact.setdefault(address, owner)
        return present


def _socket_path(text: str, directory: Path) -> Path:
    if not text:
        raise AddressError("names no path; expected unix:/PATH")
    if "\0" in text:
        raise AddressError("has a path with a NUL in it")
    path = directory / text
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise AddressError(f"has a path longer than {MAX_SOCKET_PATH} bytes, which no Unix socket can have")
    return path
