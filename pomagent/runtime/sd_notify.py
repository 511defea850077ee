"""Notifies systemd, sd_notify(3): ready, stopping, status, watchdog, and sockets for the file descriptor store."""

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
"""Maximum characters, of up to 4 bytes, of a status: systemd ignores messages over 4,096 bytes, READY=1 included."""


_Message = tuple[list[str], socket.socket | None]
"""Assignments, and the socket sent with them."""
RETRY_S: Final = 0.05
"""Seconds before a message that found the queue full is sent again."""


class Notifier:
    """Sends state to the service manager, if there is one. Never blocks, never raises.

    Each method returns whether the message was sent. Messages that must not be lost (``ready`` and the socket store)
    are otherwise queued for ``run``. A status line is dropped, as a later one replaces it.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        # Created now: without a free descriptor later, the watchdog would end a service that is only busy.
        self._socket = _datagram_socket() if self._address else None
        self._pending: deque[_Message] = deque()
        self._is_pending = Event()
        self._is_held = False
        self.watchdog_interval_s = _watchdog_interval_s(environ)
        """Half the time that systemd allows between ``watchdog`` calls, or None if it does not watch this process."""

    @property
    def is_heard(self) -> bool:
        """Whether a service manager receives messages."""
        return self._socket is not None

    def hold(self) -> None:
        """Send nothing until ``release``, because systemd would attribute it to the process that runs already."""
        self._is_held = True

    def release(self) -> None:
        """Send from now on. Queued messages are sent at once if possible."""
        self._is_held = False
        self._flush_soon()

    def run(self) -> None:
        """Send queued messages as soon as there is room. Blocks. Never returns."""
        while True:
            self._is_pending.wait()
            while not self.flush():
                gevent.sleep(RETRY_S)
            self._is_pending.clear()

    def ready(self, status: str = "") -> bool:
        """Report that the service is ready, before any queued message, because other units wait for it."""
        self._pending.appendleft((["READY=1", *_status(status)], None))
        return self._flush_soon()

    def store(self, name: str, sock: socket.socket) -> bool:
        """Have systemd keep a socket for the next process of this service."""
        return self._deliver([f"FDSTORE=1\nFDNAME={name}"], sock)

    def forget(self, name: str) -> bool:
        """Have systemd close all kept sockets of this name."""
        return self._deliver([f"FDSTOREREMOVE=1\nFDNAME={name}"])

    def flush(self) -> bool:
        """Send queued messages in order and return whether the queue is empty."""
        while self._pending:
            assignments, sock = self._pending[0]
            if (sock is None or sock.fileno() >= 0) and not self._send(*assignments, sock=sock):
                return False
            self._pending.popleft()
        return True

    def status(self, text: str) -> bool:
        return self._send(*_status(text))

    def name_main(self, pid: int) -> bool:
        """Make another process the main one, after queued messages. systemd ignores later messages of this one."""
        return self._socket is None or (self.flush() and self._send(f"MAINPID={pid}"))

    def stopping(self, status: str = "") -> bool:
        return self._send("STOPPING=1", *_status(status))

    def extend(self, usec: int) -> bool:
        """Extend the timeout of the current start or stop, counted from now."""
        return self._send(f"EXTEND_TIMEOUT_USEC={usec}")

    def watchdog(self) -> bool:
        return self._send("WATCHDOG=1")

    def close(self) -> None:
        """Send no further messages."""
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
        with suppress(OSError):  # the queue is full, or systemd is gone
            self._socket.sendmsg(["\n".join(assignments).encode(errors="replace")], rights, 0, self._address)
            return True
        return False


def _address(name: str) -> str:
    """Return the address in NOTIFY_SOCKET, with ``@`` as the null byte of an abstract socket, empty for other kinds."""
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
