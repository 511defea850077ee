"""How a command asks the running agent, and what becomes of it when there is none, or none for this user."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pomagent.admin.control import client
from pomagent.admin.control.client import ControlError, NotPermitted, NotRunning
from pomagent.cli.options import Decorator, config_path
from pomagent.runtime.exit_codes import CANNOT_SERVE, NOT_PERMITTED

socket_option: Decorator = click.option(
    "--control-socket", metavar="PATH", type=click.Path(path_type=Path),
    help="The running agent's control socket. Default: what agent.toml says, else this user's own.",
)  # fmt: skip

_ABOUT_A_FILE = frozenset({"/reload", "/preview", "/drain", "/upgrade"})
"""What makes no sense to an agent that runs on another file than the one in question."""


def ask(
    config: Path | None, control_socket: Path | None, method: str, url: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Ask the running agent; says why and exits with 69 or 77 if that is impossible. Blocks."""
    answer = ask_if_running(config, control_socket, method, url, body)
    if isinstance(answer, NotRunning):
        click.echo(f"pomagent: {answer}", err=True)
        raise SystemExit(CANNOT_SERVE) from answer
    return answer


def ask_if_running(
    config: Path | None, control_socket: Path | None, method: str, url: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any] | NotRunning:
    """Ask the agent, or return why there is none to ask; exits like ``ask`` for every other failure. Blocks."""
    try:
        return try_to_ask(config, control_socket, method, url, body)
    except NotRunning as error:
        return error
    except ControlError as error:
        click.echo(f"pomagent: {error}", err=True)
        raise SystemExit(NOT_PERMITTED if isinstance(error, NotPermitted) else CANNOT_SERVE) from error


def try_to_ask(
    config: Path | None, control_socket: Path | None, method: str, url: str, body: Mapping[str, Any] | None = None,
    timeout_s: float = client.TIMEOUT_S,
) -> dict[str, Any]:  # fmt: skip
    """Ask the agent. Blocks. Raises ControlError."""
    file = config_path(config)
    try:
        path = control_socket or client.find_socket(file, os.environ)
        if url in _ABOUT_A_FILE and (config or not control_socket):
            _check_file(path, file)
        return client.ask(path, method, url, body, timeout_s)
    except NotRunning as error:
        if control_socket or client.names_socket(file, os.environ):
            raise
        why = f"{error} {file} cannot be read, and with it status.control_socket: see --control-socket"
        raise NotRunning(why) from error


def _check_file(path: Path, file: Path) -> None:
    """Does the agent at that socket run on this file? Blocks. Raises ControlError: NotRunning if it does not."""
    runs_on = client.ask(path, "GET", "/config")["path"]
    if os.path.realpath(runs_on) != os.path.realpath(file):
        raise NotRunning(f"the agent at {path} runs on {runs_on}, not on {file}; see --config and --control-socket")
