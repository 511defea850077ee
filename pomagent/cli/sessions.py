"""``pomagent sessions`` and ``close``: list and end sessions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pomagent.cli import tables
from pomagent.cli.agent_client import ask, socket_option
from pomagent.cli.completion import route_names
from pomagent.cli.options import config_option
from pomagent.cli.tables import duration, many, plain, size

COLUMNS = ("SESSION", "ROUTE", "PEER", "USER", "AGE", "IDLE", "UP", "DOWN", "TUNNEL", "REQUEST ID")


@click.command(short_help="List running sessions, newest first.")
@config_option
@socket_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.argument("routes", nargs=-1, metavar="[ROUTE]…", shell_complete=route_names)
def sessions(config: Path | None, control_socket: Path | None, as_json: bool, routes: tuple[str, ...]) -> None:
    """List running sessions, newest first, with user, age and traffic."""
    document = ask(config, control_socket, "GET", "/sessions")
    if routes:
        document["sessions"] = [session for session in document["sessions"] if session["route"] in routes]
        document["total"] = len(document["sessions"])
    if as_json:
        click.echo(json.dumps(document))
        return
    if document["sessions"]:
        numbers = ("SESSION", "AGE", "IDLE", "UP", "DOWN")
        tables.show(tables.table(COLUMNS, list(map(_row, document["sessions"])), numbers), "")
    tables.show(plain(many(document["total"], "session")))
    for old in document.get("old_processes", []):
        tables.show(plain(f"old process {old['pid']}: {many(old['sessions'], 'session')} left, not listed here"))


@click.command(short_help="End sessions by number, or all of a route.")
@config_option
@socket_option
@click.option("--route", "routes", multiple=True, metavar="ROUTE", shell_complete=route_names,
              help="End all sessions of this route; may be repeated.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a sentence.")
@click.argument("numbers", nargs=-1, type=click.IntRange(1), metavar="[SESSION]…")
def close(
    config: Path | None, control_socket: Path | None, routes: tuple[str, ...], as_json: bool, numbers: tuple[int, ...]
) -> None:
    """End sessions now, by their numbers in "pomagent sessions", or all sessions of a route.

    Their clients see a reset, and the log has the reason "closed". New clients are still accepted. "pomagent pause"
    rejects them.
    """
    if bool(routes) == bool(numbers):
        raise click.UsageError("name either sessions or a route with --route")
    body = {"routes": list(routes)} if routes else {"sessions": list(numbers)}
    outcome = ask(config, control_socket, "POST", "/close", body)
    click.echo(json.dumps(outcome) if as_json else f"closed: {many(len(outcome['closed']), 'session')}")


def _row(session: dict[str, Any]) -> tuple[str, ...]:
    user = session["user"] or ("-" if session["uid"] is None else str(session["uid"]))
    waits = session["waited_ms"] is None
    return (
        str(session["session"]), session["route"], session["peer"], user, duration(session["age_s"]),
        duration(session["idle_s"]), size(session["bytes_up"]), size(session["bytes_down"]),
        "waits" if waits else "warm" if session["warm"] else "cold", session["request_id"] or "-",
    )  # fmt: skip
