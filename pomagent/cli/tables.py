"""Prints tables: folded to the width of a terminal, whole and plain in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

PIPE_WIDTH: Final = 100_000
"""Columns assumed for a pipe, so that no line is folded there."""
STYLES: Final[Mapping[str, str]] = {
    "up": "green", "degraded": "yellow", "draining": "yellow", "paused": "yellow", "down": "red", "denied": "red",
    "unauthenticated": "red", "quarantined": "red", "untried": "dim", "disabled": "dim",
}  # fmt: skip
"""Colour of each state of a route. The word alone has the same meaning."""


def console() -> Console:
    """Return a console for standard output."""
    from rich.console import Console  # noqa: PLC0415 - 0.2 s, only for output to people

    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def table(columns: Sequence[str], rows: Sequence[Sequence[str | Text]], numbers: Sequence[str] = ()) -> Table:
    """Return a table with one line per row. Columns in ``numbers`` are right-aligned."""
    from rich.table import Table  # noqa: PLC0415 - as above

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if not isinstance(cell, str) else plain(cell) for cell in row))
    return made


def plain(text: str, style: str = "") -> Text:
    """Return text without control characters or markup, whatever its origin."""
    from rich.text import Text  # noqa: PLC0415 - as above

    return Text("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text), style)


def state(word: str) -> Text:
    """Return a route's state in its colour."""
    return plain(word, STYLES.get(word, ""))


def show(*parts: RenderableType) -> None:
    """Print to standard output."""
    target = console()
    with target.capture() as captured:
        for part in parts:
            target.print(part)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def many(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 session``, ``2 sessions``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Return a duration in at most two units: ``850 ms``, ``12 s``, ``3 min 5 s``, ``2 h 10 min``, ``4 d 1 h``."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    left = int(seconds)
    for large, size, small, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if left >= size:
            rest = left % size // part
            return f"{left // size} {large}" + (f" {rest} {small}" if rest else "")
    return f"{left} s"


def size(count: int) -> str:
    """Return a size in binary units: ``512 B``, ``1.5 KiB``, ``12 MiB``."""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if round(amount) < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
