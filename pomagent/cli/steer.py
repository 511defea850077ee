"""The commands that talk to the running agent: ``status``, ``reload``, ``drain`` and ``upgrade``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from pomagent.cli.exits import CANNOT_SERVE, INVALID, NOT_PERMITTED
from pomagent.cli.options import config_option, config_path
from pomagent.control import client
from pomagent.control.client import ControlError, NotPermitted, NotRunning

socket_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--control-socket", metavar="PATH", type=click.Path(path_type=Path),
    help="The running agent's control socket. Default: what agent.toml says, else this user's own.",
)  # fmt: skip

_ABOUT_A_FILE = frozenset({"/reload", "/preview", "/drain", "/upgrade"})
"""What makes no sense to an agent that runs on another file than the one in question."""


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
        _print_status(document)


@click.command(short_help="Reload agent.toml at once; say what came of it.")
@config_option
@socket_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of sentences.")
def reload(config: Path | None, control_socket: Path | None, as_json: bool) -> None:
    """Reload agent.toml at once; exit 0 when it is applied, 78 with every problem when it is rejected."""
    outcome = ask(config, control_socket, "POST", "/reload")
    if as_json:
        click.echo(json.dumps(outcome))
    else:
        print_outcome(outcome)
    if outcome["result"] == "rejected":
        raise SystemExit(INVALID)


@click.command(short_help="Stop the agent once its sessions have finished.")
@config_option
@socket_option
def drain(config: Path | None, control_socket: Path | None) -> None:
    """Stop the agent like SIGTERM: it accepts no more, and ends when its sessions have, or at drain.timeout_s."""
    left = ask(config, control_socket, "POST", "/drain")["sessions_left"]
    click.echo(f"draining: {left} session{'' if left == 1 else 's'} left")


@click.command(short_help="Replace the agent by the installed version; sessions go on.")
@config_option
@socket_option
@click.option(
    "--drain", is_flag=True, help="Open sessions may last for drain.timeout_s; without, as long as they like."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a sentence.")
def upgrade(config: Path | None, control_socket: Path | None, drain: bool, as_json: bool) -> None:
    """Start a new process of the installed version; exit 0 when it serves.

    If it does not come to that, the running agent goes on: exit 78 with every problem for an invalid configuration, 77
    for an address, 69 for anything else.
    """
    outcome = ask(config, control_socket, "POST", "/upgrade", {"drain": drain})
    if as_json:
        click.echo(json.dumps(outcome))
    else:
        _print_upgrade(outcome)
    if outcome["result"] == "failed":
        raise SystemExit(outcome["code"])


def _print_upgrade(outcome: dict[str, Any]) -> None:
    if outcome["result"] == "failed":
        for problem in outcome["problems"]:
            click.echo(problem, err=True)
        click.echo(f"pomagent: {outcome['error']}: the agent goes on as before", err=True)
        return
    left = outcome["sessions_left"]
    click.echo(
        f"upgraded: pomagent {outcome['version']}, pid {outcome['pid']};"
        f" {left} session{'' if left == 1 else 's'} left in the old process"
    )


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
    file = config_path(config)
    try:
        path = control_socket or client.find_socket(file, os.environ)
        if url in _ABOUT_A_FILE and (config or not control_socket):
            _check_file(path, file)
        return client.ask(path, method, url, body)
    except NotRunning as error:
        if control_socket or client.names_socket(file, os.environ):
            return error
        return NotRunning(f"{error} {file} cannot be read, and with it status.control_socket: see --control-socket")
    except ControlError as error:
        click.echo(f"pomagent: {error}", err=True)
        raise SystemExit(NOT_PERMITTED if isinstance(error, NotPermitted) else CANNOT_SERVE) from error


def _check_file(path: Path, file: Path) -> None:
    """Does the agent at that socket run on this file? Blocks. Raises ControlError: NotRunning if it does not."""
    runs_on = client.ask(path, "GET", "/config")["path"]
    if os.path.realpath(runs_on) != os.path.realpath(file):
        raise NotRunning(f"the agent at {path} runs on {runs_on}, not on {file}; see --config and --control-socket")


def print_outcome(outcome: dict[str, Any], *, would: str = "") -> None:
    """One reload, or with ``would`` = "would be " the preview of one, for people."""
    for problem in outcome["problems"]:
        click.echo(problem, err=True)
    if outcome["result"] == "rejected":
        click.echo("would be rejected" if would else "rejected: the agent goes on as before", err=True)
        return
    if outcome["result"] == "unchanged":
        click.echo("unchanged")
        return
    for verb in ("started", "replaced", "stopped"):
        for name in outcome[verb]:
            click.echo(f"{would}{verb}: {name}")
    for change in outcome["changes"]:
        click.echo(f"{change['apply']:>12}  {change['key']}: {change['before'] or '-'} → {change['after'] or '-'}")
    click.echo(f"{would}kept: {outcome['kept']} route{'' if outcome['kept'] == 1 else 's'}")


def _print_status(document: dict[str, Any]) -> None:
    config, last = document["config"], document["last_reload"]
    click.echo(f"pomagent {document['version']}, pid {document['pid']}, up {document['uptime_s']:.0f} s")
    click.echo(f"{config['path']} ({config['sha']}), generation {document['generation']}")
    if last:
        click.echo(f"last reload {last['at']}: {last['result']}")
        for problem in last["problems"]:
            click.echo(f"  {problem}")
    for old in document.get("old_processes", []):
        click.echo(f"old process {old['pid']}, pomagent {old['version']}: {old['sessions']} sessions left")
    rows = [("ROUTE", "LISTEN", "STATE", "KEEPS", "WARM", "SESSIONS", "DESTINATION")]
    rows += [
        (
            route["name"], route["listen"], route["state"], _kept(route), f"{route['warm']}/{route['target']}",
            str(route["sessions"]), route["destination"],
        )
        for route in document["routes"]
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    click.echo()
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for route in document["routes"]:
        if route["reason"]:
            click.echo(f"\n{route['name']}: {route['reason']}")
    for gateway in document["gateways"]:
        if gateway["transport_wanted"] == "http2":
            click.echo(f"\n{gateway['name']}: {_spoken(gateway['transport'])}")


def _spoken(transport: str | None) -> str:
    """How tunnels of a gateway that should speak HTTP/2 come to it."""
    if transport == "http1":
        return "http1, since the gateway does not offer h2: half-closes are not carried"
    return transport or "not dialled yet"


def _kept(route: dict[str, Any]) -> str:
    """What it keeps warm, and why where that is neither its settings nor its port."""
    pool = route["pool"]
    if pool is None:
        return "-"
    notable = pool["why"] not in ("configured", "protocol", "port")
    return f"{pool['level']} ({pool['why']})" if notable else str(pool["level"])
