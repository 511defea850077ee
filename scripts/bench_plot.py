"""Draws the agent beside Envoy from the files that the benches wrote, so that no figure is copied by hand."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from scripts.bench_agent import Row, Tables
from scripts.bench_bars import Bars, Panel, draw
from scripts.bench_pair import AGENT, ENVOY

TITLE = "pomagent beside Envoy as the client"
COLD = f"{AGENT}, nothing warm"
SERIES = (AGENT, COLD, ENVOY)
FIRST_BYTE = {"warm = tunnel": AGENT, "warm = off": COLD, ENVOY: ENVOY}

Figures: TypeAlias = Mapping[str, Tables]
"""Tables of each bench by its name."""


def plot(figures: Figures) -> str:
    """Return the picture as SVG. A bench that did not run is left out."""
    return draw(TITLE, SERIES, [panel for panel in _panels(figures) if panel.groups])


def _panels(figures: Figures) -> list[Panel]:
    costs, echoes = (_rows(figures, "throughput", place) for place in (0, 1))
    starts = _by(_rows(figures, "routes", 1), ("routes",), "listen ms", "{:,} routes")
    return [
        Panel("First byte", "ms at the median, by how far away the gateway is", _first_byte(figures)),
        Panel("A gigabyte", "seconds of processor time", _by(costs, ("streams", "way"), "CPU s/GB", "{} × {}")),
        Panel("An echo beside 8 busy sessions", "ms at the median", _by(echoes, ("busy way",), "p50 ms", "busy {}")),
        Panel("A short session", "ms of processor time", _by(_short(figures), ("session",), "CPU ms", "{}")),
        Panel("An open session", "KB of memory", _memory(figures)),
        Panel("Start", "ms until every route listens", starts),
    ]  # fmt: skip


def _rows(figures: Figures, bench: str, place: int) -> list[Row]:
    return [*figures.get(bench, {}).values()][place] if bench in figures else []


def _by(rows: Iterable[Row], keys: tuple[str, ...], column: str, label: str) -> dict[str, Bars]:
    groups: dict[str, Bars] = {}
    for row in rows:
        if row[column] is not None:
            groups.setdefault(label.format(*(row[key] for key in keys)), {})[row["client"]] = row[column]
    return groups


def _first_byte(figures: Figures) -> dict[str, Bars]:
    rows = [row for row in _rows(figures, "first-byte", 0) if row["client"] in FIRST_BYTE]
    return _by(
        [row | {"client": FIRST_BYTE[row["client"]]} for row in rows], ("each way ms",), "p50 ms", "{} ms each way"
    )


def _short(figures: Figures) -> list[Row]:
    """Return cold sessions of both, and warm sessions of the agent without the dial that refills the pool."""
    shown = {"cold": "cold", "warm, beyond the dial": "warm, less dial"}
    rows = [row for row in _rows(figures, "churn", 0) if row["session"] in shown]
    return sorted(
        (row | {"session": shown[row["session"]]} for row in rows),
        key=lambda row: (row["session"], row["client"] == ENVOY),
    )


def _memory(figures: Figures) -> dict[str, Bars]:
    rows = _rows(figures, "memory", 0)
    kinds = {"idle": "KB each idle", "once hot": "KB each once hot"}
    return {kind: {row["client"]: row[column] for row in rows} for kind, column in kinds.items() if rows}
