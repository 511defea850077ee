"""``pomagent status``: shows the state of the running agent."""

from __future__ import annotations

import json
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pomagent.admin.control.client import ControlError, NotPermitted
from pomagent.cli import tables
from pomagent.cli.agent_client import ask, socket_option, try_to_ask
from pomagent.cli.options import config_option
from pomagent.cli.tables import STYLES, duration, many, plain
from pomagent.runtime.exit_codes import NOT_PERMITTED

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

COLUMNS = ("ROUTE", "LISTEN", "STATE", "KEEPS", "WARM", "SESSIONS", "DESTINATION")


WORST_FIRST = ("red", "yellow", "", "green", "dim")
INTERVAL_S, MAX_INTERVAL_S = 1.0, 10.0
"""Minimum and maximum seconds between two requests with --watch."""
REST_FACTOR = 10
"""The interval is this multiple of the time the agent took to answer, so that watching costs it 10 % at most."""


@click.command()
@config_option
@socket_option
@click.option(
    "--watch", is_flag=True, help="Repeat once a second until Ctrl-C; with --json, print one document per line."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def status(config: Path | None, control_socket: Path | None, watch: bool, as_json: bool) -> None:
    """Show the state of the running agent and of each route."""
    if watch:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, to restore the terminal
        with suppress(KeyboardInterrupt):
            _watch(config, control_socket, as_json=as_json)
        return
    document = ask(config, control_socket, "GET", "/status")
    if as_json:
        click.echo(json.dumps(document))
    else:
        tables.show(*_parts(document))


def _watch(config: Path | None, control_socket: Path | None, *, as_json: bool) -> None:
    """Show the status again and again, also across restarts of the agent. Never returns."""
    with ExitStack() as stack:
        show = _as_lines if as_json or not sys.stdout.isatty() else _on_screen(stack)
        while True:
            began = time.monotonic()
            try:
                document = try_to_ask(config, control_socket, "GET", "/status")
            except NotPermitted as error:
                stack.close()
                click.echo(f"pomagent: {error}", err=True)
                raise SystemExit(NOT_PERMITTED) from error
            except ControlError as error:
                document = {"error": str(error)}
            show(document, as_json)
            took_s = time.monotonic() - began
            select.select([], [], [], min(max(INTERVAL_S, REST_FACTOR * took_s), MAX_INTERVAL_S))


def _as_lines(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document))
    else:
        tables.show(*_watched(document), "")


def _on_screen(stack: ExitStack) -> Callable[[dict[str, Any], bool], None]:
    """Use the whole terminal until the stack is closed, which restores its previous content."""
    from rich.console import Group  # noqa: PLC0415 - see ``tables``
    from rich.live import Live  # noqa: PLC0415

    live = stack.enter_context(Live(console=tables.console(), screen=True, auto_refresh=False))
    return lambda document, _: live.update(Group(*_watched(document)), refresh=True)


def _parts(document: dict[str, Any]) -> Iterator[RenderableType]:
    """Render the status for people."""
    yield from map(plain, _first_lines(document))
    yield ""
    yield _table(document["routes"])
    for line in (*_reasons(document["routes"]), *_transports(document["gateways"])):
        yield ""
        yield plain(line)


def _watched(document: dict[str, Any]) -> Iterator[RenderableType]:
    """Render the status for a screen that may be too small, with the worst first."""
    if "error" in document:
        yield plain(document["error"])
        return
    routes = sorted(document["routes"], key=lambda route: WORST_FIRST.index(STYLES.get(route["state"], "")))
    yield from map(plain, _first_lines(document))
    yield ""
    if reasons := _reasons(routes):
        yield from map(plain, reasons)
        yield ""
    yield _table(routes)


def _reasons(routes: Sequence[dict[str, Any]]) -> list[str]:
    return [f"{route['name']}: {route['reason']}" for route in routes if route["reason"]]


def _transports(gateways: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the transport in use of each gateway that is configured for HTTP/2."""
    for gateway in gateways:
        if gateway["transport_wanted"] == "http2":
            used = gateway["transport"]
            fallback = "http1, because the gateway does not offer h2: half-closes are not relayed"
            yield f"{gateway['name']}: {fallback if used == 'http1' else used or 'not dialled yet'}"


def _table(routes: Sequence[dict[str, Any]]) -> Table:
    rows = [
        (
            route["name"], route["listen"], tables.state(route["state"]), _kept(route),
            f"{route['warm']}/{route['target']}", str(route["sessions"]), route["destination"],
        )
        for route in routes
    ]  # fmt: skip
    return tables.table(COLUMNS, rows, numbers=("WARM", "SESSIONS"))


def _first_lines(document: dict[str, Any]) -> Iterator[str]:
    config, last = document["config"], document["last_reload"]
    up = duration(document["uptime_s"])
    yield f"pomagent {document['version']}, pid {document['pid']}, up {up}" + (
        ", draining" if document.get("is_draining") else ""
    )
    yield f"{config['path']} ({config['sha']}), generation {document['generation']}"
    if last:
        yield f"last reload {last['at']}: {last['result']}"
        yield from (f"  {problem}" for problem in last["problems"])
    for old in document.get("old_processes", []):
        yield f"old process {old['pid']}, pomagent {old['version']}: {many(old['sessions'], 'session')} left"


def _kept(route: dict[str, Any]) -> str:
    """Return what a route keeps warm, and the reason unless it is its settings or port."""
    pool = route["pool"]
    if pool is None:
        return "-"
    notable = pool["why"] not in ("configured", "protocol", "port")
    return f"{pool['level']} ({pool['why']})" if notable else str(pool["level"])
