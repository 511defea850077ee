"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from pomagent.config.default_paths import CONFIG_VARIABLE, SYSTEM_PATH, distrust_of_local_config, find_config
from pomagent.errors import ConfigError, Problem

if TYPE_CHECKING:
    from pomagent.settings import Settings

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

config_option: Decorator = click.option(
    "--config", "-c", "config", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
    help="The agent.toml to use. Default: $POMAGENT_CONFIG, ./agent.toml if only you or root can write it, "
    "/etc/pomagent/agent.toml.",
)  # fmt: skip
browser_cmd_option: Decorator = click.option(
    "--browser-cmd", default="", metavar="CMD", help="Command that opens the sign-in page; %s stands for its address."
)
callback_port_option: Decorator = click.option(
    "--callback-port", default=0, type=click.IntRange(0, 65535), metavar="N",
    help="Port of 127.0.0.1 on which to wait for the browser, for ssh -L; 0: any free port.",
)  # fmt: skip
no_browser_option: Decorator = click.option(
    "--no-browser", is_flag=True, help="Print the address of the sign-in page instead of opening a browser."
)


def config_path(flag: Path | None) -> Path:
    """Return the file to use, whether it exists or not. Report once if ./agent.toml is ignored."""
    path = find_config(flag, os.environ)
    if path == SYSTEM_PATH and not flag and (reason := distrust_of_local_config()):
        _report_once(f"pomagent: ./agent.toml is ignored: {reason}; to use it: --config ./agent.toml")
    return path


def _report_once(message: str) -> None:
    reported: set[str] = click.get_current_context().find_root().meta.setdefault("pomagent.reported", set())
    if message not in reported:
        reported.add(message)
        click.echo(message, err=True)


def existing_config(flag: Path | None) -> Path:
    """Return the file to use. Raises ConfigError if none is named and none of the default paths exists."""
    path = config_path(flag)
    if not flag and not os.environ.get(CONFIG_VARIABLE):
        with suppress(PermissionError):  # reading it reports the error
            if not path.exists():
                raise ConfigError([Problem(path, 0, "", "does not exist; create it, or name your file with --config")])
    return path


def load_config(flag: Path | None) -> Settings:
    """Load the file to use. Blocks. Raises ConfigError."""
    from pomagent.config.load import load  # noqa: PLC0415 - 0.3 s, which client commands do not need

    return load(existing_config(flag), os.environ)
