"""Unprivileged users for servers that refuse to run as root, or should not."""

import os
import pwd
from pathlib import Path

from tests.gateway.tether import tethered
from tests.servers.programs import program


def unprivileged(*names: str) -> pwd.struct_passwd | None:
    """Return the first of these users that exists, or None if we are not root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(known[name] for name in (*names, "nobody") if name in known)


def give(user: pwd.struct_passwd | None, *paths: Path) -> None:
    """Change the owner of files. Without a user, do nothing."""
    for path in paths if user else ():
        os.chown(path, user.pw_uid, user.pw_gid)


def as_user(user: pwd.struct_passwd | None, *command: str) -> list[str]:
    """Return a command that runs as the user and ends with us.

    A change of user makes the kernel forget a tether, so the command sets its own parent-death signal.
    """
    if user is None:
        return tethered(*command)
    identity = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    return [program("setpriv"), *identity, "--pdeathsig=QUIT", *command]
