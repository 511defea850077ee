"""Which local users may bring the token of a login: those behind the command that began it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

ROOT = 0
LOGIN_UID = Path("/proc/self/loginuid")
UNSET = 0xFFFFFFFF
"""The kernel's login uid of a process that belongs to no login session."""


def originators(environ: Mapping[str, str]) -> frozenset[int]:
    """Return this process's user and root, and for root also the user behind sudo or su. Blocks briefly."""
    own = os.geteuid()
    users = {ROOT, own}
    if own == ROOT:  # a variable or a login session of another user's process proves nothing
        with suppress(OSError, ValueError):
            users.add(int(LOGIN_UID.read_text()))
        with suppress(KeyError, ValueError):
            users.add(int(environ["SUDO_UID"]))
    return frozenset(users - {UNSET})
