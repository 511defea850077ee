"""``pomagent schema``: prints the JSON Schema."""

from __future__ import annotations

import json

import click

from pomagent.config.schema import json_schema


@click.command()
def schema() -> None:
    """Print the JSON Schema of agent.toml, for editors."""
    click.echo(json.dumps(json_schema(), indent=2))
