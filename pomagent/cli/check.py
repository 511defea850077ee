"""``pomagent check``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from pomagent.cli.exits import INVALID
from pomagent.cli.options import config_option, config_path, load_config
from pomagent.cli.steer import ask_if_running, print_outcome, socket_option
from pomagent.config import load
from pomagent.errors import ConfigError, Problem
from pomagent.plan import diff as diff_plans
from pomagent.settings import Settings


@click.command()
@config_option
@socket_option
@click.option("--diff", is_flag=True, help="Ask the running agent what a reload would change, and how.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of sentences.")
def check(config: Path | None, control_socket: Path | None, diff: bool, as_json: bool) -> None:
    """Validate agent.toml and everything it names; exit 0 or 78."""
    if diff:
        _preview(config, control_socket, as_json=as_json)
        return
    try:
        settings = load_config(config)
    except ConfigError as error:
        if not as_json:
            raise
        click.echo(json.dumps({"valid": False, "problems": [_document(p) for p in error.problems], "warnings": []}))
        raise SystemExit(INVALID) from error
    if as_json:
        click.echo(json.dumps({"valid": True, "problems": [], "warnings": list(settings.warnings)}))
        return
    for warning in settings.warnings:
        click.echo(f"{warning} (warning)", err=True)
    click.echo(_summary(settings))


def _preview(config: Path | None, control_socket: Path | None, *, as_json: bool) -> None:
    answer = ask_if_running(config, control_socket, "GET", "/preview")
    outcome = answer if isinstance(answer, dict) else _preview_by_last_good(config_path(config))
    if as_json:
        click.echo(json.dumps(outcome))
    else:
        print_outcome(outcome, would="would be ")
    if outcome["result"] == "rejected":
        raise SystemExit(INVALID)


def _preview_by_last_good(path: Path) -> dict[str, Any]:
    """No agent runs: what would change since the last one accepted the file."""
    from pomagent.last_good import LastGood  # noqa: PLC0415 - needs what the plain check does not
    from pomagent.reload import Outcome, compare  # noqa: PLC0415
    from pomagent.status import reload_document  # noqa: PLC0415

    last = LastGood(path, os.environ).recall()
    try:
        settings = load(path, os.environ)
        outcome = compare(last, settings) if last else Outcome("applied", plan=diff_plans(None, settings))
    except ConfigError as error:
        outcome = Outcome("rejected", problems=error.problems)
    click.echo(f"no agent runs on {path}; compared with {'what was accepted last' if last else 'nothing'}", err=True)
    return reload_document(outcome)


def _summary(settings: Settings) -> str:
    disabled = sum(not route.enabled for route in settings.routes)
    routes = f"{len(settings.routes)} route" + ("" if len(settings.routes) == 1 else "s")
    return f"{settings.path}: valid: {routes}" + (f", {disabled} of them disabled" if disabled else "")


def _document(problem: Problem) -> dict[str, object]:
    return {
        "file": str(problem.path) if problem.path else None, "line": problem.line or None,
        "column": problem.column or None, "key": problem.key or None, "message": problem.message,
    }  # fmt: skip
