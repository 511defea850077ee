"""Sends a command's request to the running agent, and exits with the right code if that fails."""

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
    help="Control socket of the running agent. Default: status.control_socket in agent.toml, else the user's default.",
)  # fmt: skip

_FILE_SPECIFIC = frozenset({"/reload", "/preview", "/drain", "/upgrade"})
"""Requests that only an agent running on the given file may carry out."""


def ask(
    config: Path | None, control_socket: Path | None, method: str, url: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the running agent's answer, or print the reason and exit with 69 or 77. Blocks."""
    answer = ask_if_running(config, control_socket, method, url, body)
    if isinstance(answer, NotRunning):
        click.echo(f"pomagent: {answer}", err=True)
        raise SystemExit(CANNOT_SERVE) from answer
    return answer


def ask_if_running(
    config: Path | None, control_socket: Path | None, method: str, url: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any] | NotRunning:
    """Return the agent's answer, or NotRunning, or exit like ``ask`` on every other failure. Blocks."""
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
    """Return the agent's answer. Blocks. Raises ControlError."""
    file = config_path(config)
    try:
        path = control_socket or client.find_socket(file, os.environ)
        if url in _FILE_SPECIFIC and (config or not control_socket):
            _check_file(path, file)
        return client.ask(path, method, url, body, timeout_s)
    except NotRunning as error:
        if control_socket or client.names_socket(file, os.environ):
            raise
        remedy = f"name its socket with --control-socket: status.control_socket is unknown, since {file} cannot be read"
        raise NotRunning(f"{error} {remedy}") from error


def _check_file(path: Path, file: Path) -> None:
    """Check that the agent at the socket runs on this file. Blocks. Raises NotRunning if not, or ControlError."""
    runs_on = client.ask(path, "GET", "/config")["path"]
    if os.path.realpath(runs_on) != os.path.realpath(file):
        raise NotRunning(f"use --config or --control-socket: the agent at {path} runs on {runs_on}, not on {file}")
