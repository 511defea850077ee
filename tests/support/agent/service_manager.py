"""A test in the place of systemd: it hears what a service says, keeps its sockets, and passes them to the next one."""

import array
import os
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

PASS = """
import os, sys
fds = [int(fd) for fd in sys.argv[1].split(",") if fd]
high = [os.dup2(fd, 100 + index, inheritable=False) for index, fd in enumerate(fds)]
for fd in fds:
    os.close(fd)
for index, fd in enumerate(high):
    os.dup2(fd, 3 + index)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the service: only then its process id is known."""
ANCILLARY_BYTES = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(12)
"""Of a message: one descriptor, and who sent it."""


class Manager:
    """The other end of NOTIFY_SOCKET, with a store like systemd's."""

    def __init__(self, path: Path) -> None:
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._heard: list[dict[str, str]] = []
        self._store: list[tuple[str, socket.socket]] = []

    def heard(self, name: str) -> list[str]:
        """The values of that name so far, in the order of the messages."""
        self._listen()
        return [message[name] for message in self._heard if name in message]

    def senders(self, name: str) -> list[int]:
        """The processes that sent these values, in the order of the messages."""
        self._listen()
        return [int(message["from"]) for message in self._heard if name in message]

    @property
    def kept(self) -> list[str]:
        """The names of the sockets in the store."""
        self._listen()
        return sorted(name for name, _ in self._store)

    def passed(self) -> list[tuple[str, socket.socket]]:
        """What a service is given at its start."""
        self._listen()
        return list(self._store)

    def close(self) -> None:
        self._listen()
        self._socket.close()
        for _, sock in self._store:
            sock.close()

    def _listen(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(4096, ANCILLARY_BYTES)
            except BlockingIOError:
                return
            rights = {kind: content for _, kind, content in ancillary}
            fds = array.array("i", rights.get(socket.SCM_RIGHTS, b""))
            pid, _, _ = struct.unpack("=iII", rights[socket.SCM_CREDENTIALS])
            message = dict(line.split("=", 1) for line in data.decode().splitlines()) | {"from": str(pid)}
            self._heard.append(message)
            if "FDSTORE" in message:
                self._store += [(message["FDNAME"], socket.socket(fileno=fd)) for fd in fds]
            elif "FDSTOREREMOVE" in message:
                for entry in [entry for entry in self._store if entry[0] == message["FDNAME"]]:
                    entry[1].close()
                    self._store.remove(entry)


def passing(sockets: list[tuple[str, socket.socket]], *command: str) -> tuple[list[str], Mapping[str, str]]:
    """The command that passes sockets to a command as systemd does, and the variables that it needs."""
    fds = ",".join(str(sock.fileno()) for _, sock in sockets)
    names = ":".join(name for name, _ in sockets)
    variables = {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": names}
    return [sys.executable, "-I", "-S", "-c", PASS, fds, *command], variables


def inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino
