"""A service manager in the test: receives notifications, stores sockets and passes them to the next process."""

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
"""Sets LISTEN_PID and execs the service, which keeps this process's PID."""
ANCILLARY_BYTES = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(12)
"""Ancillary data of one message: a descriptor and the sender's credentials."""


class Manager:
    """The receiving end of NOTIFY_SOCKET, with a descriptor store like systemd's."""

    def __init__(self, path: Path) -> None:
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._heard: list[dict[str, str]] = []
        self._store: list[tuple[str, socket.socket]] = []

    def heard(self, name: str) -> list[str]:
        """Return the values received under a name, in order."""
        self._listen()
        return [message[name] for message in self._heard if name in message]

    def senders(self, name: str) -> list[int]:
        """Return the PIDs that sent values under a name, in order."""
        self._listen()
        return [int(message["from"]) for message in self._heard if name in message]

    @property
    def kept(self) -> list[str]:
        """The names of the stored sockets."""
        self._listen()
        return sorted(name for name, _ in self._store)

    def passed(self) -> list[tuple[str, socket.socket]]:
        """Return the stored sockets, which the next process inherits."""
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
    """Return a command that passes sockets to ``command`` as systemd does, and the variables for it."""
    fds = ",".join(str(sock.fileno()) for _, sock in sockets)
    names = ":".join(name for name, _ in sockets)
    variables = {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": names}
    return [sys.executable, "-I", "-S", "-c", PASS, fds, *command], variables


def inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino
