"""The command line: one module per group of commands. Errors become sentences and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import TextIOWrapper

import click

from pomagent import __version__
from pomagent.errors import ConfigError
from pomagent.runtime.exit_codes import CANNOT_WRITE, INVALID

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


_MODULES = {
    "run": "run", "check": "check", "probe": "probe", "status": "status", "sessions": "sessions", "wait": "wait",
    "reload": "agent_commands", "drain": "agent_commands", "upgrade": "agent_commands", "close": "sessions",
    "pause": "route_commands", "resume": "route_commands", "retry": "route_commands", "log-level": "route_commands",
    "diag": "diag", "login": "login", "logout": "login", "whoami": "login", "routes": "routes", "tcp": "tcp",
    "import": "import_", "schema": "schema",
}  # fmt: skip
"""The module of each command."""
_HIDDEN_LIBRARIES = {"run": ("rich",)}
"""Libraries that a command's imports must not find: structlog would load rich, 0.1 s, for coloured tracebacks."""


class _Group(click.Group):
    """Loads only the module of the command in use, since all of them would double the agent's start-up time."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as click calls it
        return command(cmd_name) if cmd_name in _MODULES else None


def command(name: str) -> click.Command:
    """Return the command of this name. Raises KeyError."""
    with _hidden(_HIDDEN_LIBRARIES.get(name, ())):
        module = import_module(f"pomagent.cli.{_MODULES[name]}")
    return next(item for item in vars(module).values() if isinstance(item, click.Command) and item.name == name)


@contextmanager
def _hidden(modules: Sequence[str]) -> Iterator[None]:
    """Hide modules that are not loaded yet from imports inside the block."""
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes the import fail
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def commands() -> dict[str, click.Command]:
    """Return all commands by name, in the order of the help text."""
    return {name: command(name) for name in _MODULES}


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pomagent")
def cli() -> None:
    """Fixed local ports for the TCP routes of a Pomerium gateway."""


def main() -> None:
    """Run the command line and exit."""
    _ensure_standard_streams()
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python would flush again at exit, and report a second error
        sys.exit(CANNOT_WRITE)


def _ensure_standard_streams() -> None:
    """Replace closed standard streams ("2>&-"), and escape characters that the output cannot encode."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
