"""A PostgreSQL cluster. Its programs refuse to run as root, so root runs it as another user."""

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.gateway.ports import LOOPBACK, unused_port
from tests.servers.programs import Server, program
from tests.servers.users import as_user, give, unprivileged
from tests.support.agent import processes

USER = "tester"


@contextlib.contextmanager
def postgres(**settings: object) -> "Iterator[Postgres]":
    """Create a cluster and run it with these settings. Every user of this host may log in as ``USER``."""
    directory = Path(tempfile.mkdtemp(prefix="pomagent-postgres-"))  # pytest's own is closed to other users
    try:
        cluster = Postgres(directory, settings)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Postgres:
    """One cluster, which keeps its port over restarts."""

    def __init__(self, directory: Path, settings: Mapping[str, object]) -> None:
        self._directory = directory
        self._settings = settings
        self._owner = unprivileged("postgres")
        give(self._owner, directory)
        self.port = unused_port()
        make = ("--pgdata", str(directory / "data"), "--auth", "trust", "--username", USER, "--no-sync")
        command = as_user(self._owner, program("initdb"), *make)
        done = processes.run(command, capture_output=True, text=True, cwd=directory, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Start the server. Blocks until it accepts logins."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": self.port,
            "unix_socket_directories": self._directory,
            "fsync": "off",
            **self._settings,
        }
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = as_user(self._owner, program("postgres"), "-D", str(self._directory / "data"), *arguments)
        self._server = Server(self._directory / "log", command)
        self._server.wait(self._is_ready)

    def stop(self) -> None:
        """Stop the server. Blocks until it has ended with all sessions."""
        self._server.stop(signal.SIGINT)

    @property
    def log(self) -> str:
        """The complete log."""
        return (self._directory / "log").read_text()

    def _is_ready(self) -> bool:
        """Return whether logins are accepted. The server listens before that, and refuses them."""
        status = self._directory / "data" / "postmaster.pid"
        return status.exists() and status.read_text().rstrip().endswith("ready")
