"""Commands that affect the whole agent: ``reload``, ``drain`` and ``upgrade``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pomagent.cli.agent_client import ask, socket_option
from pomagent.cli.options import config_option
from pomagent.cli.tables import many
from pomagent.runtime.exit_codes import INVALID


@click.command(short_help="Reload agent.toml now and print the result.")
@config_option
@socket_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of sentences.")
def reload(config: Path | None, control_socket: Path | None, as_json: bool) -> None:
    """Reload agent.toml now. Exits 0 if it is applied, or 78 with every problem if it is rejected."""
    outcome = ask(config, control_socket, "POST", "/reload")
    if as_json:
        click.echo(json.dumps(outcome))
    else:
        print_outcome(outcome)
    if outcome["result"] == "rejected":
        raise SystemExit(INVALID)


@click.command(short_help="Stop the agent once its sessions have ended.")
@config_option
@socket_option
def drain(config: Path | None, control_socket: Path | None) -> None:
    """Stop the agent like SIGTERM: it accepts no new sessions, and exits once all ended, or after drain.timeout_s."""
    left = ask(config, control_socket, "POST", "/drain")["sessions_left"]
    click.echo(f"draining: {many(left, 'session')} left")


@click.command(short_help="Upgrade the agent to the installed version.")
@config_option
@socket_option
@click.option(
    "--drain", is_flag=True, help="End open sessions after drain.timeout_s. Default: let them run until they end."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a sentence.")
def upgrade(config: Path | None, control_socket: Path | None, drain: bool, as_json: bool) -> None:
    """Start a new process of the installed version. Exits 0 once it serves.

    If the upgrade fails, the running agent goes on. The exit code is then 78 for an invalid configuration, with every
    problem, 77 for an address that cannot be bound, and 69 for any other cause.
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
        click.echo(f"pomagent: {outcome['error']}; the running agent goes on", err=True)
        return
    left = outcome["sessions_left"]
    click.echo(
        f"upgraded: pomagent {outcome['version']}, pid {outcome['pid']};"
        f" {many(left, 'session')} left in the old process"
    )


def print_outcome(outcome: dict[str, Any], *, would: str = "") -> None:
    """Print the outcome of a reload, or of a preview if ``would`` is "would be "."""
    for problem in outcome["problems"]:
        click.echo(problem, err=True)
    if outcome["result"] == "rejected":
        click.echo("would be rejected" if would else "rejected; the running agent goes on unchanged", err=True)
        return
    if outcome["result"] == "unchanged":
        click.echo("unchanged")
        return
    for verb in ("started", "replaced", "stopped"):
        for name in outcome[verb]:
            click.echo(f"{would}{verb}: {name}")
    for change in outcome["changes"]:
        click.echo(f"{change['apply']:>12}  {change['key']}: {change['before'] or '-'} → {change['after'] or '-'}")
    click.echo(f"{would}kept: {many(outcome['kept'], 'route')}")
