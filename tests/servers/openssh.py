"""An OpenSSH server for the user of the tests, with its own keys."""

import contextlib
import getpass
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.gateway.ports import LOOPBACK, unused_port
from tests.servers.programs import listens, program, serve
from tests.support.agent import processes

PRIVILEGE_SEPARATION = Path("/run/sshd")
"""Directory that a server started as root requires. Debian creates it when the service starts."""


@dataclass(frozen=True)
class SshServer:
    """A running server: its port, the options of a client, and its log."""

    port: int
    client_options: tuple[str, ...]
    log_file: Path = field(repr=False)

    @property
    def log(self) -> str:
        """The complete log."""
        return self.log_file.read_text()


@contextlib.contextmanager
def openssh(directory: Path, **settings: object) -> Iterator[SshServer]:
    """Run a server with these additional settings."""
    host_key, client_key = (_make_key(directory / name) for name in ("host_key", "client_key"))
    authorized = directory / "authorized_keys"
    authorized.write_text(client_key.with_suffix(".pub").read_text())
    authorized.chmod(0o600)
    if os.geteuid() == 0:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    port = unused_port()
    config = directory / "sshd_config"
    config.write_text(_config(port, host_key, authorized, directory, settings))
    log = directory / "sshd.log"
    server = serve(log, program("sshd"), "-D", "-e", "-f", str(config))
    try:
        server.wait(lambda: listens(port))
        yield SshServer(port, _client_options(directory, host_key, client_key), log)
    finally:
        server.stop()


def _make_key(path: Path) -> Path:
    processes.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def _config(port: int, host_key: Path, authorized: Path, directory: Path, more: Mapping[str, object]) -> str:
    settings = {
        "ListenAddress": f"{LOOPBACK}:{port}",
        "HostKey": host_key,
        "AuthorizedKeysFile": authorized,
        "PidFile": directory / "sshd.pid",
        "UsePAM": "no",
        "StrictModes": "no",  # the directories above belong to pytest
        "PermitRootLogin": "prohibit-password",
        "PasswordAuthentication": "no",
        "PrintMotd": "no",
        **more,
    }
    return "".join(f"{name} {value}\n" for name, value in settings.items())


def _client_options(directory: Path, host_key: Path, client_key: Path) -> tuple[str, ...]:
    known = directory / "known_hosts"
    known.write_text(f"pomagent-test {host_key.with_suffix('.pub').read_text()}")
    settings = {
        "IdentityFile": client_key,
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": known,
        "HostKeyAlias": "pomagent-test",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "LogLevel": "ERROR",
        "User": getpass.getuser(),
    }
    return ("-F", "none", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}")))
