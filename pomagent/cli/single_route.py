"""Runs the one route of ``pomagent tcp``: on a local port until a signal, or once on standard input and output."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import gevent
from gevent.event import Event

from pomagent.agent import Agent
from pomagent.config.listen import is_loopback
from pomagent.credentials.sources import TokenSources
from pomagent.log.crash_reports import install_crash_boundary
from pomagent.log.logger import LevelName, Logger, LogLevel, LogWriter, make_logger, resolve_format
from pomagent.reload.plan import diff
from pomagent.runtime.exit_codes import CANNOT_SERVE, NOT_PERMITTED
from pomagent.sessions.stdio import StdioClient
from pomagent.settings import AgentSettings, HostPort, Route, Settings

if TYPE_CHECKING:
    from pomagent.credentials.login.on_demand import OnDemandTokens

DRAIN_S = 2.0
"""Seconds that open sessions may go on after a signal."""


@dataclass(frozen=True, slots=True)
class LoginOptions:
    """How to log in, should the gateway require it."""

    browser_cmd: str
    callback_port: int
    opens_browser: bool


def serve(route: Route, login: LoginOptions) -> int:
    """Serve the route on its listen address until a signal and return the exit code. Blocks."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        gevent.signal_handler(number, stop.set)
    reads_stdin = sys.stdin is not None and sys.stdin.isatty()
    with _running(route, login, "info", DRAIN_S, reads_stdin=reads_stdin) as (agent, settings):
        agent.apply(settings, diff(None, settings))
        if agent.quarantined:
            click.echo(agent.quarantined[route.name], err=True)
            return NOT_PERMITTED
        click.echo(f"listening on {agent.listen_address(route.name)}")
        if isinstance(route.listen, HostPort) and not is_loopback(route.listen):
            click.echo("pomagent: that is not loopback: other hosts can connect", err=True)
        stop.wait()
        agent.stop_accepting()
        return 0


def serve_stdio(route: Route, login: LoginOptions) -> int:
    """Connect standard input and output to the destination once and return the exit code. Blocks."""
    with _running(route, login, "critical", 0, reads_stdin=False) as (agent, settings):
        client = StdioClient(sys.stdin.fileno(), sys.stdout.fileno())
        failure = agent.serve_once(settings, client)
        if client.loss is not None:
            failure = f"cannot write to standard output: {client.loss}"
        elif failure.startswith("ended by the client"):
            failure = "the reader of standard output has closed it"
    if failure:
        click.echo(f"pomagent: {failure}", err=True)
        return CANNOT_SERVE
    return 0


@contextmanager
def _running(
    route: Route, login: LoginOptions, log_level: LevelName, drain_s: float, *, reads_stdin: bool
) -> Iterator[tuple[Agent, Settings]]:
    """An agent and the settings with this one route. At the end its sessions have ``drain_s`` seconds left."""
    writer = LogWriter(sys.stderr.fileno())
    level = LogLevel(log_level)
    log = make_logger(writer, format=resolve_format("auto", writer.fd), level=level)
    install_crash_boundary(log, gevent.get_hub())
    logins = _logins(route, login, log, reads_stdin=reads_stdin)
    agent = Agent(log, level, (logins or TokenSources(os.environ, log)).read)
    try:
        seeded = logins.seeded(route) if logins else route
        yield agent, Settings(path=Path("command line"), agent=AgentSettings(), routes=(seeded,))
    finally:
        if logins:
            logins.close()
        agent.finish(drain_s)
        writer.close()


def _logins(route: Route, login: LoginOptions, log: Logger, *, reads_stdin: bool) -> OnDemandTokens | None:
    """Return the source of login tokens, or None for a route without a login."""
    if route.credential is None or route.credential.source != "login":
        return None
    from pomagent.credentials.login import flow  # noqa: PLC0415 - imports requests, which few routes need
    from pomagent.credentials.login.on_demand import OnDemandTokens  # noqa: PLC0415

    paste_from = sys.stdin.fileno() if reads_stdin else None
    options = flow.LoginOptions(login.browser_cmd, login.opens_browser, login.callback_port, paste_from)
    return OnDemandTokens(
        route.gateway, options, lambda text: click.echo(f"pomagent: {text}", err=True), os.environ, log
    )
