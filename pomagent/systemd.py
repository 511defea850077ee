"""What systemd is told, sd_notify(3): ready, stopping, one line of status, still alive."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

STATUS_CHARACTERS: Final = 1000
"""systemd ignores a message over 4,096 bytes as a whole, READY=1 included; a character is 4 bytes at most."""


class Notifier:
    """Sends state to the service manager, or nothing where there is none. Never blocks, never raises.

    Each method says whether the message was handed over; false is worth another try for ``ready`` only.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        # Made now: without a descriptor later on, the watchdog would end a service that is merely busy.
        self._socket = _datagram_socket() if self._address else None
        self.watchdog_interval_s = _watchdog_interval_s(environ)
        """Half of what systemd allows between two ``watchdog`` calls; None if it does not watch this process."""

    def ready(self, status: str = "") -> bool:
        return self._send("READY=1", *_status(status))

    def status(self, text: str) -> bool:
        return self._send(*_status(text))

    def stopping(self, status: str = "") -> bool:
        return self._send("STOPPING=1", *_status(status))

    def extend(self, usec: int) -> bool:
        """Asks for more time, counted from now, for the start or the stop under way."""
        return self._send(f"EXTEND_TIMEOUT_USEC={usec}")

    def watchdog(self) -> bool:
        return self._send("WATCHDOG=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _send(self, *assignments: str) -> bool:
        if self._socket is None or not assignments:
            return False
        with suppress(OSError):  # its queue is full, or it is gone
            self._socket.sendto("\n".join(assignments).encode(errors="replace"), self._address)
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
