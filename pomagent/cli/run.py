"""``pomagent run``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

import click

from pomagent.cli.options import config_option, config_path
from pomagent.config import load
from pomagent.errors import ConfigError
from pomagent.log import LogLevel, LogWriter, make_logger, resolve_format


@click.command()
@config_option
def run(config: Path | None) -> None:
    """Run the agent in the foreground until SIGTERM or SIGINT."""
    from pomagent.service import Service  # noqa: PLC0415 - the other commands need no event loop

    path = config_path(config).absolute()
    writer = LogWriter(sys.stderr.fileno())
    level = LogLevel()
    log = make_logger(writer, format=resolve_format(_wished_format(path), writer.fd), level=level)
    try:
        code = Service(path, os.environ, log, level).run()
    finally:
        writer.close()
    sys.exit(code)


def _wished_format(path: Path) -> Literal["auto", "json", "console"]:
    """What the file says, as far as it can be read: its problems are told in the log, in some format."""
    try:
        return load(path, os.environ).agent.log_format
    except ConfigError:
        return "auto"
