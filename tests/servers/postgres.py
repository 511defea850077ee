"""A PostgreSQL cluster, of another user where we are root: its programs refuse to run as root."""

import contextlib
import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests import processes
from tests.gateway.ports import LOOPBACK, unused_port
from tests.gateway.tether import tethered
from tests.servers.programs import Server, program

USER = "tester"
UNPRIVILEGED = ("postgres", "nobody")


@contextlib.contextmanager
def postgres() -> "Iterator[Postgres]":
    """Make a cluster and run it. Everybody on this host may log in as ``USER``."""
    directory = Path(tempfile.mkdtemp(prefix="pomagent-postgres-"))  # pytest's own is closed to other users
    try:
        cluster = Postgres(directory)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Postgres:
    """One cluster on one port, over every restart."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._owner = _owner()
        self.port = unused_port()
        if self._owner:
            os.chown(directory, self._owner.pw_uid, self._owner.pw_gid)
        make = ("--pgdata", str(directory / "data"), "--auth", "trust", "--username", USER, "--no-sync")
        command = _as(self._owner, program("initdb"), *make)
        done = processes.run(command, capture_output=True, text=True, cwd=directory, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Blocks until it takes connections."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": self.port,
            "unix_socket_directories": self._directory,
            "fsync": "off",
        }
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = _as(self._owner, program("postgres"), "-D", str(self._directory / "data"), *arguments)
        self._server = Server(self._directory / "log", command)
        self._server.wait(self._is_ready)

    def stop(self) -> None:
        """Blocks until it has ended, and with it every session."""
        self._server.stop(signal.SIGINT)

    def _is_ready(self) -> bool:
        """It listens before that, and then refuses every login."""
        status = self._directory / "data" / "postmaster.pid"
        return status.exists() and status.read_text().rstrip().endswith("ready")


def _owner() -> pwd.struct_passwd | None:
    """Whose cluster it is; None for our own."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(known[name] for name in UNPRIVILEGED if name in known)


def _as(owner: pwd.struct_passwd | None, *command: str) -> list[str]:
    """The command as that user, and no orphan: a change of user makes the kernel forget a tether."""
    if owner is None:
        return tethered(*command)
    user = (f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups")
    return [program("setpriv"), *user, "--pdeathsig=QUIT", *command]
