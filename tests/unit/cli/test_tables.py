"""Tables: complete in a pipe, harmless on a terminal."""

from __future__ import annotations

import io
import sys
from typing import get_args

import click
import pytest

from pomagent.cli import tables
from pomagent.cli.tables import duration, many, plain, size
from pomagent.route_state import State

LONG = "a-route-whose-name-is-longer-than-most-terminals-are-wide." * 4


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(tables.table(("ROUTE", "WARM"), [(LONG, "1/2"), ("b", "10/20")], numbers=("WARM",)))
    header, *rows = capsys.readouterr().out.splitlines()
    assert rows == [f"{LONG}    1/2", f"{'b'.ljust(len(LONG))}  10/20"]
    assert header.split() == ["ROUTE", "WARM"]


def test_a_pipe_gets_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(tables.state("down"))
    assert capsys.readouterr().out == "down\n"


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_states_are_coloured_on_a_terminal_unless_no_color_is_set(
    monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    tables.show(tables.state("down"))
    assert ("\x1b[31m" in terminal.getvalue()) == coloured


def test_lines_are_folded_to_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    tables.show(tables.table(("ROUTE", "WARM"), [(LONG, "1/2")]))
    lines = click.unstyle(terminal.getvalue()).splitlines()
    assert max(map(len, lines)) <= 60
    assert "".join(line.split()[0] for line in lines[1:]) == LONG


def test_markup_is_printed_literally_and_control_characters_are_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(plain("[red]x[/red] \x1b[2J\x9b"), tables.table(("[b]A",), [("[/] \x07",)]))
    assert capsys.readouterr().out == "[red]x[/red] \ufffd[2J\ufffd\n[b]A\n[/] \ufffd\n"


def test_every_state_of_a_route_has_a_style() -> None:
    assert set(get_args(State)) - set(tables.STYLES) == set()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0.0, "0 ms"), (0.85, "850 ms"), (1.0, "1 s"), (59.9, "59 s"), (60.0, "1 min"),
        (185.0, "3 min 5 s"), (7800.0, "2 h 10 min"), (3600.0, "1 h"), (349_200.0, "4 d 1 h"),
    ],
)  # fmt: skip
def test_a_duration_has_at_most_two_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (10 * 1024, "10 KiB"),
     (1024**2 - 1, "1.0 MiB"), (12 * 1024**2, "12 MiB"), (5000 * 1024**4, "5000 TiB")],
)  # fmt: skip
def test_a_size_has_two_figures_or_more_and_a_unit(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 sessions"), (1, "1 session"), (2, "2 sessions")])
def test_a_count_of_one_is_singular(count: int, text: str) -> None:
    assert many(count, "session") == text
