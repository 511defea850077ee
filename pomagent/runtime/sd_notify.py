"""What systemd is told, sd_notify(3): ready, stopping, one line of status, still alive, sockets to keep for us."""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import gevent
from gevent.event import Event

STATUS_CHARACTERS: Final = 1000
"""systemd ignores a message over 4,096 bytes as a whole, READY=1 included; a character is 4 bytes at most."""


_Message = tuple[list[str], socket.socket | None]
"""Assignments, and a socket that goes with them."""
RETRY_S: Final = 0.05
"""Before what found the queue full is sent again."""


class Notifier:
    """Sends state to the service manager, or nothing where there is none. Never blocks, never raises.

    Each method says whether the message was handed over. What must not be lost (``ready`` and the socket store) waits
    for its turn if it was not, and ``run`` sends it; a line of status is out of date by then.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        # Made now: without a descriptor later on, the watchdog would end a service that is merely busy.
        self._socket = _datagram_socket() if self._address else None
        self._pending: deque[_Message] = deque()
        self._is_pending = Event()
        self._is_held = False
        self.watchdog_interval_s = _watchdog_interval_s(environ)
        """Half of what systemd allows between two ``watchdog`` calls; None if it does not watch this process."""

    @property
    def is_heard(self) -> bool:
        """Whether there is a service manager to tell."""
        return self._socket is not None

    def hold(self) -> None:
        """Say nothing until ``release``: it would be taken for the word of the process that runs already."""
        self._is_held = True

    def release(self) -> None:
        """From now on this process speaks; what must not be lost is sent, or waits for ``run``."""
        self._is_held = False
        self._flush_soon()

    def run(self) -> None:
        """Send what must not be lost as soon as there is room for it. Never returns."""
        while True:
            self._is_pending.wait()
            while not self.flush():
                gevent.sleep(RETRY_S)
            self._is_pending.clear()

    def ready(self, status: str = "") -> bool:
        """Goes before whatever else waits: others wait for it."""
        self._pending.appendleft((["READY=1", *_status(status)], None))
        return self._flush_soon()

    def store(self, name: str, sock: socket.socket) -> bool:
        """Has a socket kept for the next process of this service."""
        return self._deliver([f"FDSTORE=1\nFDNAME={name}"], sock)

    def forget(self, name: str) -> bool:
        """Has every socket of that name kept no longer."""
        return self._deliver([f"FDSTOREREMOVE=1\nFDNAME={name}"])

    def flush(self) -> bool:
        """Send what waits, in its order, and say whether nothing waits any more."""
        while self._pending:
            assignments, sock = self._pending[0]
            if (sock is None or sock.fileno() >= 0) and not self._send(*assignments, sock=sock):
                return False
            self._pending.popleft()
        return True

    def status(self, text: str) -> bool:
        return self._send(*_status(text))

    def name_main(self, pid: int) -> bool:
        """Has another process followed as the main one, after whatever waits; nothing said later is heard."""
        return self._socket is None or (self.flush() and self._send(f"MAINPID={pid}"))

    def stopping(self, status: str = "") -> bool:
        return self._send("STOPPING=1", *_status(status))

    def extend(self, usec: int) -> bool:
        """Asks for more time, counted from now, for the start or the stop under way."""
        return self._send(f"EXTEND_TIMEOUT_USEC={usec}")

    def watchdog(self) -> bool:
        return self._send("WATCHDOG=1")

    def close(self) -> None:
        """Say nothing any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._pending.clear()

    def _deliver(self, assignments: list[str], sock: socket.socket | None = None) -> bool:
        self._pending.append((assignments, sock))
        return self._flush_soon()

    def _flush_soon(self) -> bool:
        if self._socket is None:
            self._pending.clear()
            return False
        is_sent = self.flush()
        if not is_sent:
            self._is_pending.set()
        return is_sent

    def _send(self, *assignments: str, sock: socket.socket | None = None) -> bool:
        if self._socket is None or self._is_held or not assignments:
            return False
        rights = [] if sock is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))]
        with suppress(OSError):  # its queue is full, or it is gone
            self._socket.sendmsg(["\n".join(assignments).encode(errors="replace")], rights, 0, self._address)
            return True
        return False


def _address(name: str) -> str:
    """The address of NOTIFY_SOCKET; ``@`` stands for the null byte of an abstract one. Empty for any other kind."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _datagram_socket() -> socket.socket | None:
    with suppress(OSError):
        return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    return None


def _status(text: str) -> list[str]:
    line = " ".join(text.split())[:STATUS_CHARACTERS]
    return [f"STATUS={line}"] if line else []


def _watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    with suppress(ValueError):
        usec = int(environ.get("WATCHDOG_USEC", "0"))
        is_meant = int(environ.get("WATCHDOG_PID", os.getpid())) == os.getpid()
        return usec / 2_000_000 if usec > 0 and is_meant else None
    return None
