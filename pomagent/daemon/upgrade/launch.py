"""Starts the new process of an upgrade and detaches it from the old one. Imports next to nothing."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final

VARIABLE: Final = "POMAGENT_UPGRADE_FD"
"""The descriptor of the channel to the old process."""
_OF_THIS_PROCESS: Final = ("WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""Variables that systemd sets for one process and that its successor must not inherit."""


def command() -> list[str]:
    """Return the command that starts the installed version of this program."""
    if Path(sys.argv[0]).is_file() and os.access(sys.argv[0], os.X_OK):
        return list(sys.argv)
    return [sys.executable, *sys.orig_argv[1:]]


def environment(environ: Mapping[str, str], channel: int) -> dict[str, str]:
    kept = {name: value for name, value in environ.items() if name not in _OF_THIS_PROCESS}
    return kept | {VARIABLE: str(channel)}


def detach(environ: MutableMapping[str, str]) -> socket.socket | None:
    """Return the channel to the process that this one replaces, or None at an ordinary start.

    Forks, so call it before any thread is started. systemd notices the end of its main process only if that is its own
    child, so the old process must not be the parent of the new one.
    """
    given = environ.pop(VARIABLE, "")
    if not given:
        return None
    try:
        channel = socket.socket(fileno=int(given))
    except (OSError, ValueError):
        return None
    channel.set_inheritable(False)
    if os.fork():
        os._exit(0)
    return channel
