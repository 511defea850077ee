"""Draws panels of grouped horizontal bars as SVG, each bar with its figure. Pure.

Colours follow the reader's light or dark mode. Each bar has its figure, so that colour is never all there is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from xml.sax.saxutils import escape

COLUMNS = 2
MARGIN, GUTTER = 20, 32
PANEL_WIDTH = 420
LABEL_WIDTH, FIGURE_WIDTH = 104, 64
HEADING = 44
"""Height of a panel's title and unit, in pixels."""
BAR, BAR_GAP, GROUP_GAP = 13, 2, 9
LEGEND = 40
ROUND = 2
"""Radius of a bar's far end, in pixels."""
STYLE = """\
svg { font: 12px system-ui, sans-serif; --surface: #fcfcfb; --text: #0b0b0b; --faint: #52514e;
  --bar-0: #2a78d6; --bar-1: #9ec5f4; --bar-2: #eb6834 }
@media (prefers-color-scheme: dark) { svg { --surface: #1a1a19; --text: #ffffff; --faint: #c3c2b7;
  --bar-0: #3987e5; --bar-1: #1c5cab; --bar-2: #d95926 } }
.surface { fill: var(--surface) } text { fill: var(--text) } .faint { fill: var(--faint) } .title { font-weight: 600 }
.bar-0 { fill: var(--bar-0) } .bar-1 { fill: var(--bar-1) } .bar-2 { fill: var(--bar-2) }"""

Bars: TypeAlias = dict[str, float]
"""Values by series."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A comparison with its unit and the bars of each group."""

    title: str
    unit: str
    groups: dict[str, Bars]

    @property
    def height(self) -> int:
        bars = sum(map(len, self.groups.values()))
        return HEADING + bars * (BAR + BAR_GAP) + len(self.groups) * GROUP_GAP


def draw(title: str, series: Sequence[str], panels: Sequence[Panel]) -> str:
    """Return the whole picture. A series has the colour of its position."""
    drawn, top = [*_legend(series)], MARGIN + LEGEND
    for row in _rows(panels):
        for column, panel in enumerate(row):
            drawn += _panel(panel, series, MARGIN + column * (PANEL_WIDTH + GUTTER), top)
        top += max(panel.height for panel in row) + GUTTER
    width = 2 * MARGIN + COLUMNS * PANEL_WIDTH + (COLUMNS - 1) * GUTTER
    size = f'width="{width}" height="{top}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" {size} role="img">',
            f"<title>{escape(title)}</title>", f"<style>\n{STYLE}\n</style>",
            f'<rect class="surface" {size}/>', *drawn, "</svg>\n",
        ]
    )  # fmt: skip


def _rows(panels: Sequence[Panel]) -> Iterator[Sequence[Panel]]:
    for start in range(0, len(panels), COLUMNS):
        yield panels[start : start + COLUMNS]


def _legend(series: Sequence[str]) -> Iterator[str]:
    for place, name in enumerate(series):
        left = MARGIN + place * PANEL_WIDTH // 2
        yield f'<rect class="bar-{place}" x="{left}" y="{MARGIN}" width="12" height="12" rx="{ROUND}"/>'
        yield _text(left + 18, MARGIN + 10, name)


def _panel(panel: Panel, series: Sequence[str], left: int, top: int) -> Iterator[str]:
    yield _text(left, top + 12, panel.title, "title")
    yield _text(left, top + 28, panel.unit, "faint")
    longest = max((value for bars in panel.groups.values() for value in bars.values()), default=0) or 1
    room = PANEL_WIDTH - LABEL_WIDTH - FIGURE_WIDTH
    y = top + HEADING
    for label, bars in panel.groups.items():
        yield _text(left + LABEL_WIDTH - 8, y + BAR - 2, label, "faint", "end")
        for name, value in bars.items():
            width = max(1.0, value / longest * room)
            yield _bar(series.index(name), left + LABEL_WIDTH, y, width, f"{label}, {name}: {figure(value)}")
            yield _text(left + LABEL_WIDTH + width + 5, y + BAR - 2, figure(value))
            y += BAR + BAR_GAP
        y += GROUP_GAP


def _bar(place: int, x: float, y: float, width: float, tip: str) -> str:
    size = f'x="{x}" y="{y}" width="{width:.1f}" height="{BAR}" rx="{ROUND}"'
    return f'<rect class="bar-{place}" {size}><title>{escape(tip)}</title></rect>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def figure(value: float) -> str:
    """Format a figure with about three digits. More would be noise."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
