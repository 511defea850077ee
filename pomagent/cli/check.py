"""``pomagent check``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pomagent.cli.exits import INVALID
from pomagent.cli.options import config_option, load_config
from pomagent.errors import ConfigError, Problem
from pomagent.settings import Settings


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of sentences.")
def check(config: Path | None, as_json: bool) -> None:
    """Validate agent.toml and everything it names; exit 0 or 78."""
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


def _summary(settings: Settings) -> str:
    disabled = sum(not route.enabled for route in settings.routes)
    routes = f"{len(settings.routes)} route" + ("" if len(settings.routes) == 1 else "s")
    return f"{settings.path}: valid: {routes}" + (f", {disabled} of them disabled" if disabled else "")


def _document(problem: Problem) -> dict[str, object]:
    return {
        "file": str(problem.path) if problem.path else None, "line": problem.line or None,
        "column": problem.column or None, "key": problem.key or None, "message": problem.message,
    }  # fmt: skip
