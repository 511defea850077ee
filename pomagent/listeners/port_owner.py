"""Finds the process that listens on an address, as far as /proc shows it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pomagent.settings import HostPort, UnixAddress

_LISTEN = "0A"
_PROC = Path("/proc")


def owner_of(address: object) -> str:
    """Return text such as ``redis-server (pid 1234)``, or nothing if the address is free. Blocks: not for the hub."""
    inodes = {f"socket:[{inode}]" for inode in _inodes(address)}
    if not inodes:
        return ""
    for process in _PROC.iterdir():
        if process.name.isdigit() and _has_open(process, inodes):
            return f"{_name(process)} (pid {process.name})"
    return "another user's process"


def _inodes(address: object) -> Iterator[str]:
    """Yield the inodes of sockets that listen on the address or on one that covers it."""
    with suppress(OSError):
        if isinstance(address, UnixAddress):
            for line in (_PROC / "net/unix").read_text().splitlines()[1:]:
                fields = line.split(maxsplit=7)
                if len(fields) == 8 and fields[7] == str(address.path):
                    yield fields[6]
        elif isinstance(address, HostPort):
            table = (_PROC / ("net/tcp6" if ":" in address.host else "net/tcp")).read_text()
            for line in table.splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and _covers(fields[1], address):
                    yield fields[9]


def _covers(local: str, address: HostPort) -> bool:
    host, _, port = local.partition(":")
    requested = _as_in_proc(address.host)
    wildcard = "0" * len(requested)
    return int(port, 16) == address.port and (host in (requested, wildcard) or requested == wildcard)


def _as_in_proc(host: str) -> str:
    """Return an address as /proc/net/tcp prints it: words of four bytes in the machine's byte order."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))


def _has_open(process: Path, inodes: set[str]) -> bool:
    with suppress(OSError):  # the process has ended, or belongs to another user
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                if os.readlink(descriptor) in inodes:  # noqa: PTH115 - no path: "socket:[4711]"
                    return True
    return False


def _name(process: Path) -> str:
    with suppress(OSError):
        return (process / "comm").read_text().strip()
    return "a process"
