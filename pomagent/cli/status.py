"""``pomagent status``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pomagent.cli import tables
from pomagent.cli.asking import ask, socket_option
from pomagent.cli.options import config_option
from pomagent.cli.tables import duration, many, plain

if TYPE_CHECKING:
    from rich.console import RenderableType

COLUMNS = ("ROUTE", "LISTEN", "STATE", "KEEPS", "WARM", "SESSIONS", "DESTINATION")


@click.command()
@config_option
@socket_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
def status(config: Path | None, control_socket: Path | None, as_json: bool) -> None:
    """Say what the running agent is doing."""
    document = ask(config, control_socket, "GET", "/status")
    if as_json:
        click.echo(json.dumps(document))
    else:
        tables.show(*parts_of(document))


def parts_of(document: dict[str, Any]) -> Iterator[RenderableType]:
    """The document for people, from top to bottom."""
    yield from map(plain, _first_lines(document))
    yield ""
    rows = [
        (
            route["name"], route["listen"], tables.state(route["state"]), _kept(route),
            f"{route['warm']}/{route['target']}", str(route["sessions"]), route["destination"],
        )
        for route in document["routes"]
    ]  # fmt: skip
    yield tables.table(COLUMNS, rows, numbers=("WARM", "SESSIONS"))
    for route in document["routes"]:
        if route["reason"]:
            yield ""
            yield plain(f"{route['name']}: {route['reason']}")


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
    """What it keeps warm, and why where that is neither its settings nor its port."""
    pool = route["pool"]
    if pool is None:
        return "-"
    notable = pool["why"] not in ("configured", "protocol", "port")
    return f"{pool['level']} ({pool['why']})" if notable else str(pool["level"])
