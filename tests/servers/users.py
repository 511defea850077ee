"""Servers that refuse to run as root, or should not: as whom they run where we are root."""

import os
import pwd
from pathlib import Path

from tests.gateway.tether import tethered
from tests.servers.programs import program


def unprivileged(*names: str) -> pwd.struct_passwd | None:
    """The first of these users that exists; None where we are not root and servers are simply ours."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(known[name] for name in (*names, "nobody") if name in known)


def give(user: pwd.struct_passwd | None, *paths: Path) -> None:
    """Make them that user's."""
    for path in paths if user else ():
        os.chown(path, user.pw_uid, user.pw_gid)


def as_user(user: pwd.struct_passwd | None, *command: str) -> list[str]:
    """The command as that user, and no orphan: a change of user makes the kernel forget a tether."""
    if user is None:
        return tethered(*command)
    identity = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    return [program("setpriv"), *identity, "--pdeathsig=QUIT", *command]
