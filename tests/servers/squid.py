"""A squid, a common forward proxy between bastion hosts and the Internet."""

import contextlib
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.gateway.certificates import Certificate
from tests.gateway.ports import LOOPBACK, unused_port
from tests.servers.programs import Server, listens, program, serve
from tests.servers.users import give, unprivileged

USER = "proxy"
HELPER = """#!/bin/sh
while read -r login; do
    if [ "$login" = "{user} {password}" ]; then echo OK; else echo ERR; fi
done
"""


@dataclass
class Squid:
    """A running squid: its ports, its log and its connections."""

    port: int
    tls_port: int
    directory: Path = field(repr=False)
    server: Server = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"https://localhost:{self.tls_port}"

    @property
    def requests(self) -> list[str]:
        """Lines of the access log, one for each CONNECT that is over."""
        log = self.directory / "access.log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def connections(self) -> int:
        """Connections to the proxy now."""
        ports = {f":{port:04X}" for port in (self.port, self.tls_port)}
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[3] == "01" and row[1][-5:] in ports for row in rows)


@contextlib.contextmanager
def squid(
    certificate: Certificate, hosts: dict[str, str], *, user: str = "", password: str = "", port: int = 0
) -> Iterator[Squid]:
    """Run a squid that allows CONNECT to one port, with a login if ``user`` is given. It resolves ``hosts``."""
    directory = Path(tempfile.mkdtemp(prefix="pomagent-squid-"))  # pytest's own is closed to other users
    try:
        ports = unused_port(), unused_port()
        _prepare(directory, certificate, hosts, user, password)
        (directory / "squid.conf").write_text(_config(directory, *ports, target=port, with_users=bool(user)))
        _give_away(directory)
        server = serve(directory / "squid.log", program("squid"), "-N", "-f", str(directory / "squid.conf"))
        try:
            server.wait(lambda: all(map(listens, ports)))
            yield Squid(*ports, directory, server)
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _prepare(directory: Path, certificate: Certificate, hosts: dict[str, str], user: str, password: str) -> None:
    shutil.copy(certificate.cert_file, directory / "cert.pem")
    shutil.copy(certificate.key_file, directory / "key.pem")
    (directory / "hosts").write_text("".join(f"{address} {name}\n" for name, address in hosts.items()))
    helper = directory / "helper"
    helper.write_text(HELPER.format(user=user, password=password))
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)


def _give_away(directory: Path) -> None:
    """Give the files to the user that squid runs as if we are root."""
    give(unprivileged(USER), directory, *directory.iterdir())


def _config(directory: Path, port: int, tls_port: int, *, target: int, with_users: bool) -> str:
    lines = [
        f"http_port {LOOPBACK}:{port}",
        f"https_port {LOOPBACK}:{tls_port} tls-cert={directory}/cert.pem tls-key={directory}/key.pem",
        f"hosts_file {directory}/hosts",
        f"access_log stdio:{directory}/access.log",
        f"cache_log {directory}/cache.log",
        f"coredump_dir {directory}",
        "pid_filename none",
        "cache deny all",
        "pinger_enable off",
        "shutdown_lifetime 0 seconds",
        "visible_hostname squid.example.test",
        f"acl target port {target}",
        "http_access deny !target",
    ]
    if owner := unprivileged(USER):
        lines.append(f"cache_effective_user {owner.pw_name}")
    if with_users:
        lines += [
            f"auth_param basic program {directory}/helper",
            "auth_param basic children 1 startup=1",
            "acl known proxy_auth REQUIRED",
            "http_access allow known",
        ]
    return "\n".join([*lines, f"http_access {'deny' if with_users else 'allow'} all", ""])
