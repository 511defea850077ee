"""``pomagent diag``: writes a support archive."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click

from pomagent.admin.control.client import NotRunning
from pomagent.cli.agent_client import ask_if_running, socket_option
from pomagent.cli.options import config_option, config_path
from pomagent.cli.tables import many
from pomagent.config.load import load
from pomagent.config.toml import MAX_FILE_BYTES
from pomagent.errors import ConfigError
from pomagent.runtime.exit_codes import CANNOT_WRITE, INVALID
from pomagent.runtime.files import read_file

STANDARD_OUTPUT = Path("-")
READ_ME = """\
Support archive of pomagent on this host, written by "pomagent diag" {version} at {at}.

It contains no tokens, no passwords and no data from tunnels. It does contain host names, addresses, route names and
local user names: review it before you send it to others.

versions.json     versions of the agent, its libraries, Python and the system
status.json       the output of "pomagent status --json"
events.jsonl      the latest notable events, newest first
greenlets.txt     where each greenlet and thread waits
configuration/    the files in effect, without comments, unknown keys and likely secrets
check.txt         the output of "pomagent check" for the present files, and the uid that ran this command
{missing}"""


@click.command(short_help="Write a support archive without secrets.")
@config_option
@socket_option
@click.option("--output", "-o", type=click.Path(path_type=Path), metavar="FILE",
              help='File to write; "-": standard output. Default: ./pomagent-diag-HOST-TIME.tar.gz.')  # fmt: skip
def diag(config: Path | None, control_socket: Path | None, output: Path | None) -> None:
    """Write a support archive that is safe to mail, and print its name.

    It contains versions, the redacted configuration, status, notable events, and where each greenlet waits.
    Without a running agent it contains less. It never contains tokens or passwords.
    """
    now = datetime.now(UTC)
    answer = ask_if_running(config, control_socket, "GET", "/diag")
    files = _without_agent(config_path(config)) if isinstance(answer, NotRunning) else dict(answer["files"])
    files["check.txt"] = _check(config_path(config))
    missing = f"\nNo part comes from an agent: {answer}\n" if isinstance(answer, NotRunning) else ""
    files["README.txt"] = _read_me(now, missing)
    name = f"pomagent-diag-{socket.gethostname().partition('.')[0]}-{now:%Y%m%dT%H%M%SZ}"
    archive = _archive(name, files, now)
    if missing:
        click.echo(f"pomagent: {answer} The archive is incomplete.", err=True)
    if output == STANDARD_OUTPUT:
        click.echo(archive, nl=False)
        return
    path = output or Path(f"{name}.tar.gz")
    _write(path, archive)
    click.echo(path)


def _without_agent(path: Path) -> dict[str, str]:
    from pomagent.admin.diagnosis.agent_report import configuration  # noqa: PLC0415 - only needed without an agent
    from pomagent.admin.diagnosis.versions import versions  # noqa: PLC0415

    files = {"versions.json": json.dumps(versions(os.environ), indent=2) + "\n"}
    try:
        return files | configuration(load(path, os.environ).files)
    except (ConfigError, OSError):
        pass  # check.txt has the reason
    try:
        return files | configuration([(path, read_file(path, limit=MAX_FILE_BYTES).content)])
    except OSError:
        return files


def _check(path: Path) -> str:
    from pomagent.admin.diagnosis.redaction import scrubbed  # noqa: PLC0415

    try:
        settings = load(path, os.environ)
        lines = [*settings.warnings, f"{path}: valid: {many(len(settings.routes), 'route')}"]
    except ConfigError as error:
        lines = [*map(str, error.problems), f"exit code {INVALID}"]
    return scrubbed("".join(f"{line}\n" for line in [*lines, f"run by uid {os.geteuid()}"]))


def _read_me(now: datetime, missing: str) -> str:
    from pomagent import __version__  # noqa: PLC0415

    return READ_ME.format(version=__version__, at=now.isoformat(timespec="seconds"), missing=missing)


def _archive(name: str, files: Mapping[str, str], now: datetime) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for path, text in sorted(files.items()):
            data = text.encode(errors="backslashreplace")
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size, entry.mtime, entry.mode = len(data), int(now.timestamp()), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def _write(path: Path, archive: bytes) -> None:
    """Write a file that only this user can read. Never overwrite one."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - no path
            file.write(archive)
    except OSError as error:
        click.echo(f"pomagent: name another file with --output: cannot write {path}: {error.strerror}", err=True)
        sys.exit(CANNOT_WRITE)
