"""The command line: one module per group of commands; errors become sentences and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from io import TextIOWrapper

import click

from pomagent import __version__
from pomagent.cli.check import check
from pomagent.cli.diag import diag
from pomagent.cli.exits import CANNOT_WRITE, INVALID
from pomagent.cli.import_ import import_
from pomagent.cli.intervene import log_level, pause, resume, retry
from pomagent.cli.login import login, logout, whoami
from pomagent.cli.probe import probe
from pomagent.cli.routes import routes
from pomagent.cli.run import run
from pomagent.cli.schema import schema
from pomagent.cli.sessions import close, sessions
from pomagent.cli.status import status
from pomagent.cli.steer import drain, reload, upgrade
from pomagent.cli.tcp import tcp
from pomagent.cli.wait import wait
from pomagent.errors import ConfigError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pomagent")
def cli() -> None:
    """Fixed local ports for the TCP routes of a Pomerium gateway."""


for command in (
    run, check, probe, status, sessions, wait, reload, drain, upgrade, close, pause, resume, retry, log_level, diag,
    login, logout, whoami, routes, tcp, import_, schema,
):  # fmt: skip
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit."""
    _have_standard_streams()
    try:
        cli(prog_name="pomagent")
    except ConfigError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        sys.exit(INVALID)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        click.echo(f"pomagent: cannot write to {error.filename or 'standard output'}: {error.strerror}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try once more at its end, and say so
        sys.exit(CANNOT_WRITE)


def _have_standard_streams() -> None:
    """Python has none where a descriptor was closed ("2>&-"), and fails at characters that a terminal lacks."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
