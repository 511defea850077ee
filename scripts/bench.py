"""How fast the agent is on this machine. Run it as ``scripts/bench``; docs/performance.md has what we measured.

A subcommand measures and returns rows; printing and ``--json`` are common to all.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from scripts import bench_routes

Row: TypeAlias = dict[str, Any]
"""Column to value; None where there is nothing to measure."""

BENCHES: dict[str, Callable[[argparse.Namespace], list[Row]]] = {"routes": bench_routes.run}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    # before the run: what else is busy, not the benchmark's own load
    document = {"bench": options.bench, "began": datetime.now(UTC).isoformat(), "machine": machine()}
    rows = BENCHES[options.bench](options)
    print_table(rows)
    if options.json:
        options.json.write_text(json.dumps(document | {"rows": rows}, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure the agent on this machine.")
    benches = parser.add_subparsers(dest="bench", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", type=Path, metavar="FILE", help="also write machine and figures here")
    common.add_argument("--quick", action="store_true", help="only to see that it works; the figures mean little")
    bench_routes.add_arguments(
        benches.add_parser("routes", parents=[common], help="start, validation and reload by number of routes")
    )
    return parser


def print_table(rows: Sequence[Row]) -> None:
    """As Markdown, so that it can be pasted into docs/performance.md."""
    cells = [[*rows[0]], *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    header, *body = (_line(row, widths) for row in cells)
    print("\n".join([header, _line(["-" * (width - 1) + ":" for width in widths], widths), *body]))


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": _cpu_model(), "cpus": os.cpu_count(), "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}", "python": platform.python_version(),
    }  # fmt: skip


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
