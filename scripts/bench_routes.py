"""Measures what an unused route costs at start, at validation, and when another route is edited.

No gateway is involved (``warm = "off"``). Times inside the agent come from its JSON log. In the comparison with Envoy
(``bench_envoy_routes``) both are measured from outside.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pomagent.config.load import load
from pomagent.reload.reloader import QUIET_S
from scripts import bench_envoy_routes
from scripts.bench_agent import BenchedAgent, Row, Tables, ms, seconds_of

COUNTS = (10, 100, 1_000, 10_000)
RUNS = 5
BESIDE_RUNS = 3
"""At most, of each client: a start, an edit."""
QUICK_COUNTS = (10, 50)
QUICK_RUNS = 1

HOST = "127.83.0.1"
"""Loopback address without ports of other programs, which use 127.0.0.1."""
FIRST_PORT, LAST_PORT = 10_000, 32_767  # above the privileged ones, below those that the kernel gives to clients
SPARE_DESCRIPTORS = 200
"""Descriptors of the agent besides its listeners."""
SETTLE_S = 0.5
"""Seconds between the start and the first edit, so that work of the start does not count for the reload."""


@dataclass(frozen=True, slots=True)
class Start:
    """Times of one start until every route listened."""

    whole_ms: float
    """Milliseconds from exec, Python, imports and validation included."""
    bound_ms: float
    """Milliseconds from the end of validation."""
    memory_mb: float
    """Resident, a moment later."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("counts", nargs="*", type=int, metavar="COUNT", help=f"routes; default: {COUNTS}")
    parser.add_argument("--runs", type=int, help=f"of which the median is taken; default: {RUNS}")


def run(options: argparse.Namespace) -> Tables:
    """Measure and return a table by number of routes, and the comparison with Envoy."""
    counts = options.counts or (QUICK_COUNTS if options.quick else COUNTS)
    runs = options.runs or (QUICK_RUNS if options.quick else RUNS)
    check_descriptors(max(counts))
    alone = [_measure(count, runs) for count in counts]
    beside = [
        row
        for count in counts
        for row in bench_envoy_routes.compare(count, min(runs, BESIDE_RUNS), HOST, _free_ports(count + 1), _write)
    ]
    return {"routes": alone, "routes beside Envoy": beside}


def _measure(count: int, runs: int) -> Row:
    print(f"{count} routes …", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="pomagent-bench-") as directory:
        path = Path(directory, "agent.toml")
        ports = _free_ports(count + 1)
        _write(path, ports[:count])
        validate_ms = _median(lambda: _validate(path, count), runs)
        starts = [_start(path, Path(directory, f"start-{index}.log"), count) for index in range(runs)]
        edits = _edit(path, Path(directory, "edit.log"), ports, runs)
        return {
            "routes": count,
            "validated ms": validate_ms,
            "started ms": statistics.median(start.whole_ms for start in starts),
            "of it bound ms": statistics.median(start.bound_ms for start in starts),
            "memory MB": statistics.median(start.memory_mb for start in starts),
            "edit live ms": statistics.median(live for live, _ in edits),
            "edit applied ms": statistics.median(applied for _, applied in edits),
            "slowest edit ms": max(applied for _, applied in edits),
        }


def _validate(path: Path, count: int) -> float:
    """Read and validate the file, as a reload does, and return the milliseconds."""
    began = time.perf_counter()
    assert len(load(path, {}).routes) == count
    return ms(time.perf_counter() - began)


def _start(path: Path, log: Path, count: int) -> Start:
    with BenchedAgent(path, log) as agent:
        started = agent.wait_for("agent.started")
        assert (started["routes"], started["quarantined"]) == (count, 0), started
        listening = [seconds_of(event) for event in agent.events("listener.bound")]
        assert len(listening) == count
        loaded = seconds_of(agent.wait_for("config.loaded"))
        time.sleep(SETTLE_S)
        return Start(ms(max(listening) - agent.began), ms(max(listening) - loaded), agent.memory_mb)


def _edit(path: Path, log: Path, ports: list[int], runs: int) -> list[tuple[float, float]]:
    """Return milliseconds from the end of the quiet time until the new port listens, and until ``config.applied``."""
    *used, spare = ports
    edited = len(used) // 2
    times = []
    with BenchedAgent(path, log) as agent:
        agent.wait_for("agent.started")
        for done in range(1, runs + 1):
            time.sleep(SETTLE_S)
            used[edited], spare = spare, used[edited]
            _write(path, used)
            quiet = time.time() + QUIET_S
            applied = agent.wait_for("config.applied", count=done)
            assert (applied["replaced"], applied["kept"]) == (1, len(used) - 1), applied
            bound = agent.events("listener.bound")[-1]
            assert (bound["route"], bound["listen"]) == (_name(edited), f"{HOST}:{used[edited]}"), bound
            times.append((ms(seconds_of(bound) - quiet), ms(seconds_of(applied) - quiet)))
    return times


def _write(path: Path, ports: list[int]) -> None:
    """Replace the file by a rename, as editors do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(
        '[status]\nlisten = ""\n\n[defaults]\nwarm = "off"\n' + "".join(map(_route, range(len(ports)), ports))
    )
    fresh.replace(path)


def _route(index: int, port: int) -> str:
    name = _name(index)
    return f'\n[[routes]]\nname = "{name}"\nfrom = "tcp+https://{name}.example.com:5432"\nlisten = "{HOST}:{port}"\n'


def _name(index: int) -> str:
    return f"db-{index:05}"


def _free_ports(count: int) -> list[int]:
    free = list(
        islice((port for port in range(FIRST_PORT, LAST_PORT + 1) if not bench_envoy_routes.listens(HOST, port)), count)
    )
    if len(free) < count:
        raise SystemExit(f"only {len(free)} of {count} ports are free on {HOST}")
    return free


def check_descriptors(count: int) -> None:
    """Check the hard limit of descriptors. The agent raises the soft limit itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + SPARE_DESCRIPTORS:
        raise SystemExit(f"{count} routes need {count + SPARE_DESCRIPTORS} descriptors, and ulimit -Hn is {hard}")


def _median(measure: Callable[[], float], runs: int) -> float:
    return statistics.median(measure() for _ in range(runs))
