"""A MariaDB server that counts and blocks hosts that connect without logging in, as in production."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.gateway.ports import LOOPBACK, unused_port
from tests.servers.programs import Server, program
from tests.servers.users import as_user, give, unprivileged
from tests.support.agent import processes

USER = "tester"
GUEST = "127.83.0.2"
"""Source address for the gateway, which the server treats as another host: it never counts errors of 127.0.0.1."""
LOGIN_TIMEOUT_S = 2
"""Seconds of ``connect_timeout``, 10 by default. A login that takes longer is an error."""

# Only a host with a name has a row in the host cache, and no resolver here knows the guest.
WITH_HOSTS = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'


@contextlib.contextmanager
def mariadb() -> "Iterator[Mariadb]":
    """Create and run a database. ``USER`` may log in from everywhere, without a password."""
    directory = Path(tempfile.mkdtemp(prefix="pomagent-mariadb-"))  # pytest's own is closed to other users
    try:
        server = Mariadb(directory)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Mariadb:
    """One server on one port, and its counters."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._owner = unprivileged("mysql")
        give(self._owner, directory)
        self.port = unused_port()
        self._install()
        self._server = Server(directory / "log", self._command())
        try:
            self._server.wait(lambda: self._run("SELECT 1").returncode == 0)
            self.query(f"CREATE USER {USER}@'%'")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._server.stop()

    def query(self, statement: str) -> list[list[str]]:
        """Return the rows of a statement, run as the operator over the Unix socket."""
        done = self._run(statement)
        assert done.returncode == 0, done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()]

    @property
    def aborted_connects(self) -> int:
        """Connections since the start that never logged in."""
        return int(self.query("SHOW GLOBAL STATUS LIKE 'Aborted_connects'")[0][1])

    @property
    def guest_errors(self) -> int:
        """Errors of the guest since its last login."""
        rows = self.query(f"SELECT sum_connect_errors FROM performance_schema.host_cache WHERE ip = '{GUEST}'")
        return int(rows[0][0]) if rows else 0

    def block_after(self, errors: int) -> None:
        """Block a host after this number of consecutive errors."""
        self.query(f"SET GLOBAL max_connect_errors = {errors}")

    def forgive(self) -> None:
        """Unblock all hosts, as an operator has to."""
        self.query("FLUSH HOSTS")

    def _run(self, statement: str) -> "subprocess.CompletedProcess[str]":
        client = (program("mariadb"), "--no-defaults", f"--socket={self._directory / 'socket'}", "--user=root")
        batch = ("--batch", "--skip-column-names", f"--execute={statement}")
        return processes.run([*client, *batch], capture_output=True, text=True, check=False)

    def _install(self) -> None:
        data = f"--datadir={self._directory / 'data'}"
        make = ("--no-defaults", data, "--auth-root-authentication-method=normal", "--skip-test-db")
        command = as_user(self._owner, program("mariadb-install-db"), *make)
        done = processes.run(command, capture_output=True, text=True, cwd=self._directory, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def _command(self) -> list[str]:
        hosts = self._directory / "hosts"
        hosts.write_text(f"{LOOPBACK} localhost\n{GUEST} guest.example.test\n")
        settings = {
            "datadir": self._directory / "data",
            "socket": self._directory / "socket",
            "pid-file": self._directory / "pid",
            "bind-address": LOOPBACK,
            "port": self.port,
            "connect-timeout": LOGIN_TIMEOUT_S,
            "performance-schema": "ON",  # shows the host cache
            "innodb-flush-log-at-trx-commit": 0,
        }
        # Mounting without root needs a namespace in which we are root. The server then needs --user=root.
        namespace = ("--mount",) if self._owner else ("--map-root-user", "--mount")
        user = () if self._owner else ("--user=root",)
        options = [f"--{name}={value}" for name, value in settings.items()]
        command = as_user(self._owner, program("mariadbd"), "--no-defaults", *options, *user)
        return [program("unshare"), *namespace, program("sh"), "-c", WITH_HOSTS, "sh", str(hosts), *command]
