"""The commands that change what one route does, or what is logged: ``pause``, ``resume``, ``retry``, ``log-level``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pomagent.cli.agent_client import ask, socket_option
from pomagent.cli.completion import route_names
from pomagent.cli.options import Decorator, config_option
from pomagent.cli.tables import many

LEVELS = ("debug", "info", "warning", "error")
json_option: Decorator = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of sentences.")
routes_argument: Decorator = click.argument(
    "routes", nargs=-1, required=True, metavar="ROUTE…", shell_complete=route_names
)


@click.command(short_help="Turn new clients of a route away until it is resumed.")
@config_option
@socket_option
@json_option
@routes_argument
def pause(config: Path | None, control_socket: Path | None, as_json: bool, routes: tuple[str, ...]) -> None:
    """Turn new clients of ROUTE away, and keep nothing warm for it: its server may be worked on.

    Open sessions go on; "pomagent close --route" ends them. The port stays the agent's. It lasts until "pomagent
    resume", also over a reload and an upgrade; a restart of the agent ends it.
    """
    outcome = ask(config, control_socket, "POST", "/pause", {"routes": list(routes)})
    if as_json:
        click.echo(json.dumps(outcome))
        return
    for name, left in outcome["sessions_left"].items():
        word = "paused" if name in outcome["paused"] else "paused already"
        click.echo(f"{word}: {name}, {many(left, 'session')} left")


@click.command(short_help="Let clients into a paused route again.")
@config_option
@socket_option
@json_option
@routes_argument
def resume(config: Path | None, control_socket: Path | None, as_json: bool, routes: tuple[str, ...]) -> None:
    """Let clients into ROUTE again, and keep tunnels warm for it."""
    outcome = ask(config, control_socket, "POST", "/resume", {"routes": list(routes)})
    if as_json:
        click.echo(json.dumps(outcome))
        return
    for name in dict.fromkeys(routes):
        click.echo(f"resumed: {name}" if name in outcome["resumed"] else f"was not paused: {name}")


@click.command(short_help="Try what has failed again, now.")
@config_option
@socket_option
@json_option
@click.argument("routes", nargs=-1, metavar="[ROUTE]…", shell_complete=route_names)
def retry(config: Path | None, control_socket: Path | None, as_json: bool, routes: tuple[str, ...]) -> None:
    """Forget the waits of ROUTE after failures, or of all routes: whatever was in the way has been mended.

    Closes breakers, asks failed sources of tokens and avoided addresses again, and tries to bind what is in quarantine.
    """
    outcome = ask(config, control_socket, "POST", "/retry", {"routes": list(routes)})
    click.echo(json.dumps(outcome) if as_json else f"retried: {many(len(outcome['retried']), 'route')}")


@click.command("log-level", short_help="Log more, or less, for a while.")
@config_option
@socket_option
@json_option
@click.option("--for", "for_s", type=click.FloatRange(0), default=0.0, metavar="S",
              help="Then as agent.toml says again; 0: until told otherwise.")  # fmt: skip
@click.argument("level", required=False, type=click.Choice([*LEVELS, "file"]))
def log_level(config: Path | None, control_socket: Path | None, as_json: bool, for_s: float, level: str | None) -> None:
    """Say from which level on the agent logs, or change that; "file": what agent.toml says.

    A reload does not end it, a restart and an upgrade do.
    """
    if level is None:
        outcome = ask(config, control_socket, "GET", "/log-level")
    else:
        body = {"level": "" if level == "file" else level, "for_s": for_s}
        outcome = ask(config, control_socket, "POST", "/log-level", body)
    if as_json:
        click.echo(json.dumps(outcome))
    else:
        click.echo(f"{outcome['level']} (agent.toml: {outcome['configured']})")
