"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pomagent.config import find_config, load
from pomagent.settings import Settings

config_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--config", "-c", "config", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
    help="The agent.toml to use. Default: $POMAGENT_CONFIG, ./agent.toml, /etc/pomagent/agent.toml.",
)  # fmt: skip


def config_path(flag: Path | None) -> Path:
    return find_config(flag, os.environ)


def load_config(flag: Path | None) -> Settings:
    """Load what ``--config`` means. Blocks. Raises ConfigError."""
    return load(config_path(flag), os.environ)
