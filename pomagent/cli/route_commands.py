"""Commands for routes and the log level: ``pause``, ``resume``, ``retry``, ``log-level``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pomagent.cli.agent_client import ask, socket_option
from pomagent.cli.completion import route_names
from pomagent.cli.options import Decorator, config_option
from pomagent.cli.tables import many

LEVELS = ("debug", "info", "warning", "error")
json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of sentences."
)
routes_argument: Decorator = click.argument(
    "routes", nargs=-1, required=True, metavar="ROUTE…", shell_complete=route_names
)


@click.command(short_help="Reject new clients of a route until it is resumed.")
@config_option
@socket_option
@json_option
@routes_argument
def pause(config: Path | None, control_socket: Path | None, as_json: bool, routes: tuple[str, ...]) -> None:
    """Reject new clients of ROUTE, and keep nothing warm for it, for example while its server is under maintenance.

    Open sessions go on. "pomagent close --route" ends them. The agent keeps the port. The pause lasts until "pomagent
    resume", across reloads and upgrades, but ends with a restart of the agent.
    """
    outcome = ask(config, control_socket, "POST", "/pause", {"routes": list(routes)})
    if as_json:
        click.echo(json.dumps(outcome))
        return
    for name, left in outcome["sessions_left"].items():
        word = "paused" if name in outcome["paused"] else "already paused"
        click.echo(f"{word}: {name}, {many(left, 'session')} left")


@click.command(short_help="Accept clients of a paused route again.")
@config_option
@socket_option
@json_option
@routes_argument
def resume(config: Path | None, control_socket: Path | None, as_json: bool, routes: tuple[str, ...]) -> None:
    """Accept clients of ROUTE again, and keep tunnels warm for it."""
    outcome = ask(config, control_socket, "POST", "/resume", {"routes": list(routes)})
    if as_json:
        click.echo(json.dumps(outcome))
        return
    for name in dict.fromkeys(routes):
        click.echo(f"resumed: {name}" if name in outcome["resumed"] else f"was not paused: {name}")


@click.command(short_help="Retry everything that has failed, now.")
@config_option
@socket_option
@json_option
@click.argument("routes", nargs=-1, metavar="[ROUTE]…", shell_complete=route_names)
def retry(config: Path | None, control_socket: Path | None, as_json: bool, routes: tuple[str, ...]) -> None:
    """Retry at once whatever has failed for ROUTE, or for all routes, after the cause has been fixed.

    Closes breakers, reads failed token sources again, dials avoided addresses again, and binds quarantined routes.
    """
    outcome = ask(config, control_socket, "POST", "/retry", {"routes": list(routes)})
    click.echo(json.dumps(outcome) if as_json else f"retried: {many(len(outcome['retried']), 'route')}")


@click.command("log-level", short_help="Show or change the log level for a while.")
@config_option
@socket_option
@json_option
@click.option("--for", "for_s", type=click.FloatRange(0), default=0.0, metavar="S",
              help="Return to the level in agent.toml after this time; 0: never.")  # fmt: skip
@click.argument("level", required=False, type=click.Choice([*LEVELS, "file"]))
def log_level(config: Path | None, control_socket: Path | None, as_json: bool, for_s: float, level: str | None) -> None:
    """Print the log level of the running agent, or change it. "file" restores the level in agent.toml.

    The change survives a reload, but not a restart or an upgrade.
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
