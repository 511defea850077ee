"""Measures the agent on this machine. Run it as ``scripts/bench``. docs/performance.md has our figures.

Each subcommand measures and returns tables. This module prints them and writes them as JSON.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts import bench_churn, bench_first_byte, bench_memory, bench_plot, bench_routes, bench_throughput, bench_warm
from scripts.bench_agent import Row, Tables

BENCHES: dict[str, Callable[[argparse.Namespace], Tables]] = {
    "routes": bench_routes.run,
    "first-byte": bench_first_byte.run,
    "warm": bench_warm.run,
    "throughput": bench_throughput.run,
    "churn": bench_churn.run,
    "memory": bench_memory.run,
}


SIZES: dict[str, tuple[str, ...]] = {
    "routes": ("routes",),
    "first-byte": ("first-byte", "--rounds", "30", "--takes", "60"),
    "warm": ("warm",),
    "throughput": ("throughput", "--megabytes", "500"),
    "throughput-http2": ("throughput", "--megabytes", "500", "--transport", "http2"),
    "churn": ("churn",),
    "memory": ("memory",),
}
"""The benches of ``all`` by the names of their files. Together they take half an hour."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    COMMANDS[options.bench](options)
    return 0


def _bench(options: argparse.Namespace) -> None:
    # before the run: the load of other programs, not of the bench
    document = {"bench": options.bench, "began": datetime.now(UTC).isoformat(), "machine": machine()}
    tables = BENCHES[options.bench](options)
    print_tables(tables)
    if options.json:
        options.json.write_text(json.dumps(document | {"tables": tables}, indent=2) + "\n")


def _all(options: argparse.Namespace) -> None:
    """Run every bench. One that fails ends the run and leaves the files of the earlier ones."""
    options.json_dir.mkdir(parents=True, exist_ok=True)
    for name, arguments in SIZES.items():
        command = (arguments[0], "--quick") if options.quick else arguments
        main([*command, "--json", str(options.json_dir / f"{name}.json")])


def _tables(options: argparse.Namespace) -> None:
    for name, document in _documents(options.directory).items():
        print(f"\n## {name}\n\nBegan {document['began']}; {json.dumps(document['machine'])}")
        print_tables(document["tables"])


def _plot(options: argparse.Namespace) -> None:
    figures = {name: document["tables"] for name, document in _documents(options.directory).items()}
    options.output.write_text(bench_plot.plot(figures))


def _documents(directory: Path) -> dict[str, Any]:
    """Return the files that ``all`` wrote, in its order."""
    files = {name: directory / f"{name}.json" for name in SIZES}
    found = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    if not found:
        raise SystemExit(f"no figures in {directory}; scripts/bench all --json-dir {directory} measures them")
    return found


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    **dict.fromkeys(BENCHES, _bench), "all": _all, "tables": _tables, "plot": _plot,
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure the agent on this machine.")
    benches = parser.add_subparsers(dest="bench", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", type=Path, metavar="FILE", help="also write machine and figures here")
    common.add_argument("--quick", action="store_true", help="only check that it works; the figures mean little")
    for name, module, purpose in (
        ("routes", bench_routes, "start, validation and reload by number of routes"),
        ("first-byte", bench_first_byte, "an application's first byte against a bare tunnel and Envoy, at a distance"),
        ("warm", bench_warm, "1,000 routes with a warm tunnel each: start, processor and memory"),
        ("throughput", bench_throughput, "processor time of a gigabyte against Envoy; an echo beside busy sessions"),
        ("churn", bench_churn, "processor time of a short session against Envoy"),
        ("memory", bench_memory, "what an idle session holds against Envoy, and what sessions leave behind"),
    ):
        module.add_arguments(benches.add_parser(name, parents=[common], help=purpose))
    every = benches.add_parser("all", help="run each of them, in half an hour")
    every.add_argument("--json-dir", type=Path, required=True, metavar="DIR", help="write a file for each here")
    every.add_argument("--quick", action="store_true", help="only check that it works; the figures mean little")
    tables = benches.add_parser("tables", help="print the figures of all as Markdown")
    plot = benches.add_parser("plot", help="draw the figures of all as SVG")
    plot.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    for reader in (tables, plot):
        reader.add_argument("directory", type=Path, metavar="DIR", help="of the files")
    return parser


def print_tables(tables: Tables) -> None:
    for title, rows in tables.items():
        print(f"\n{title}\n")
        print_table(rows)


def print_table(rows: Sequence[Row]) -> None:
    """Print a table as Markdown for docs/performance.md."""
    cells = [[*rows[0]], *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    header, *body = (_line(row, widths) for row in cells)
    print("\n".join([header, _line(["-" * (width - 1) + ":" for width in widths], widths), *body]))


def machine() -> dict[str, Any]:
    """Describe the machine, its software and its load."""
    return {
        "cpu": _cpu_model(), "cpus": os.cpu_count(), "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}", "python": platform.python_version(),
    }  # fmt: skip


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
