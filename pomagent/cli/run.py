"""``pomagent run``: the agent itself."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
from pathlib import Path

import click

from pomagent.cli.options import config_option, existing_config
from pomagent.daemon.upgrade.launch import detach
from pomagent.listeners.inherited import from_systemd
from pomagent.log.journal import journal_behind
from pomagent.log.logger import LogFormat, LogLevel, LogWriter, make_logger, resolve_format


@click.command()
@config_option
def run(config: Path | None) -> None:
    """Run the agent in the foreground until SIGTERM or SIGINT."""
    gc.disable()  # while loading objects that stay: collections would be a seventh of the start-up time
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # until the service handles it: an early reload must not kill the process
    channel = detach(os.environ)  # forks: before any thread
    faulthandler.enable()  # the watchdog ends a stuck agent with SIGABRT, and standard error then has the stack
    inherited = from_systemd(os.environ)
    from pomagent.daemon.service import Service  # noqa: PLC0415 - the other commands need no event loop
    from pomagent.daemon.upgrade.takeover import Takeover, TakeoverFailed  # noqa: PLC0415

    path = existing_config(config).absolute()
    fd = sys.stderr.fileno()
    writer = LogWriter(fd, journal_behind(fd, os.environ))
    level, log_format = LogLevel(), LogFormat(resolve_format("auto", fd))
    log = make_logger(writer, format=log_format, level=level)
    try:
        takeover = Takeover(channel, inherited)
        takeover.receive()
        code = Service(path, os.environ, log, level, log_format, takeover).run()
    except TakeoverFailed as error:
        code = error.code
    finally:
        writer.close()
    sys.exit(code)
