"""``pomagent check``: validates the configuration."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from pomagent.cli.agent_client import ask_if_running, socket_option
from pomagent.cli.agent_commands import print_outcome
from pomagent.cli.options import config_option, config_path, existing_config
from pomagent.cli.tables import many
from pomagent.config.load import InputsMissing, load
from pomagent.credentials.refresh_schedule import WARN_BEFORE_S, life_of
from pomagent.errors import ConfigError, Problem
from pomagent.reload.plan import diff as diff_plans
from pomagent.runtime.exit_codes import INVALID
from pomagent.settings import Credential, Settings


@click.command()
@config_option
@socket_option
@click.option("--diff", is_flag=True, help="Show what a reload would change in the running agent, and how.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of sentences.")
def check(config: Path | None, control_socket: Path | None, diff: bool, as_json: bool) -> None:
    """Validate agent.toml and every file it names. Exits 0 or 78."""
    if diff:
        _preview(config, control_socket, as_json=as_json)
        return
    try:
        settings = _load(existing_config(config))
    except ConfigError as error:
        if not as_json:
            raise
        click.echo(
            json.dumps({"valid": False, "problems": [_problem_object(p) for p in error.problems], "warnings": []})
        )
        raise SystemExit(INVALID) from error
    if as_json:
        click.echo(json.dumps({"valid": True, "problems": [], "warnings": _warnings(settings)}))
        return
    for warning in _warnings(settings):
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
    """Compare with the configuration accepted last, since no agent runs."""
    from pomagent.admin.status.documents import reload_document  # noqa: PLC0415 - the plain check does not need it
    from pomagent.reload.last_good import LastGood  # noqa: PLC0415 - the plain check does not need it
    from pomagent.reload.outcome import Outcome, compare  # noqa: PLC0415

    last = LastGood(path, os.environ).restore()
    try:
        settings = _load(path)
        outcome = compare(last, settings) if last else Outcome("applied", plan=diff_plans(None, settings))
    except ConfigError as error:
        outcome = Outcome("rejected", problems=error.problems)
    click.echo(
        f"no agent runs on {path}; compared with {'the configuration accepted last' if last else 'nothing'}", err=True
    )
    return reload_document(outcome)


def _load(path: Path) -> Settings:
    """Return the settings that a start accepts. Raises ConfigError."""
    try:
        return load(path, os.environ)
    except InputsMissing as error:
        return error.settings


def _warnings(settings: Settings) -> list[str]:
    """Return the files' warnings and a warning for each token that expires soon. Only the gateway rejects a token."""
    of_routes = [(route.gateway, route.credential) for route in settings.routes]
    credentials = {c.name: c for _, c in (*settings.gateways, *of_routes) if c is not None and c.token is not None}
    return [*settings.warnings, *(warning for c in credentials.values() if (warning := _expiry_warning(c)))]


def _expiry_warning(credential: Credential) -> str:
    expires_at = life_of(credential.token.get_secret_value()).expires_at if credential.token else None
    left_s = float("inf") if expires_at is None else expires_at - time.time()
    if expires_at is None or left_s > WARN_BEFORE_S[0]:
        return ""
    at = datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"credentials.{credential.name}: replace the token: it {'expired' if left_s <= 0 else 'expires'} at {at}"


def _summary(settings: Settings) -> str:
    disabled = sum(not route.enabled for route in settings.routes)
    return f"{settings.path}: valid: {many(len(settings.routes), 'route')}" + (
        f", {disabled} of them disabled" if disabled else ""
    )


def _problem_object(problem: Problem) -> dict[str, object]:
    return {
        "file": str(problem.path) if problem.path else None, "line": problem.line or None,
        "column": problem.column or None, "key": problem.key or None, "message": problem.message,
    }  # fmt: skip
