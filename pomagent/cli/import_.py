"""``pomagent import``: converts a Pomerium Desktop export."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pomagent.cli.tables import many
from pomagent.config.desktop import MAX_EXPORT_BYTES, Imported, read_export, to_toml
from pomagent.errors import ConfigError, Problem
from pomagent.runtime.files import FileError, read_file

STANDARD_INPUT = Path("-")


@click.command("import", short_help="Convert a Pomerium Desktop export to agent.toml.")
@click.argument("export", metavar="FILE", type=click.Path(path_type=Path))
def import_(export: Path) -> None:
    """Print an agent.toml with the routes of a Pomerium Desktop export; "-" reads standard input.

    Exits 78 if FILE is not such an export.
    """
    imported = to_toml(read_export(_content(export), export))
    for warning in imported.warnings:
        click.echo(warning, err=True)
    click.echo(_summary(imported), err=True)
    click.echo(imported.text.encode(), nl=False)  # TOML is UTF-8, whatever the terminal's encoding


def _content(export: Path) -> bytes:
    try:
        return _standard_input() if export == STANDARD_INPUT else read_file(export, limit=MAX_EXPORT_BYTES).content
    except FileError as error:
        raise ConfigError([Problem(export, 0, "", error.reason)]) from error


def _standard_input() -> bytes:
    content = sys.stdin.buffer.read(MAX_EXPORT_BYTES + 1)
    if len(content) > MAX_EXPORT_BYTES:
        raise FileError(STANDARD_INPUT, f"is larger than {MAX_EXPORT_BYTES} bytes")
    return content


def _summary(imported: Imported) -> str:
    left_out = f", {imported.left_out} left out" if imported.left_out else ""
    return f"{many(imported.routes, 'route')}{left_out}"
