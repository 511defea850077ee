"""How the new process of an upgrade is started, and how it becomes nobody's child. Imports next to nothing."""

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
"""What systemd has told this process about itself alone."""


def command() -> list[str]:
    """What starts this program again, as it is installed now."""
    if Path(sys.argv[0]).is_file() and os.access(sys.argv[0], os.X_OK):
        return list(sys.argv)
    return [sys.executable, *sys.orig_argv[1:]]


def environment(environ: Mapping[str, str], channel: int) -> dict[str, str]:
    kept = {name: value for name, value in environ.items() if name not in _OF_THIS_PROCESS}
    return kept | {VARIABLE: str(channel)}


def detach(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The channel to the process that this one replaces, None at an ordinary start. Before any thread is started.

    systemd notices the end of its main process only if that is its own child, so the old one must not be our parent.
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
