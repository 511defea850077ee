"""The commands that change what the whole agent does: ``reload``, ``drain`` and ``upgrade``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pomagent.cli.agent_client import ask, socket_option
from pomagent.cli.options import config_option
from pomagent.runtime.exit_codes import INVALID


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
