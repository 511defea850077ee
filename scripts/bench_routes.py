"""What a route costs while nobody uses it: at start, at validation, and when another one is edited.

No gateway is involved (``warm = "off"``). Times inside the agent are those of its own JSON log.
"""

import argparse
import json
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from pomagent.config import load
from pomagent.reload import QUIET_S
from tests.agent_process import clean_environment
from tests.gateway.tether import tethered
from tests.gateway.waiting import scaled

COUNTS = (10, 100, 1_000, 10_000)
RUNS = 5
QUICK_COUNTS = (10, 50)
QUICK_RUNS = 1

HOST = "127.83.0.1"
"""Loopback as well, and nobody else's: other programs' ports are on 127.0.0.1."""
FIRST_PORT, LAST_PORT = 10_000, 32_767  # above the privileged ones, below those that the kernel gives to clients
SPARE_DESCRIPTORS = 200
"""Of the agent, besides its listeners."""
POLL_S = 0.02
TIMEOUT_S = 120
SETTLE_S = 0.5
"""After the start, before the first edit: what the start left behind must not count as part of the reload."""

Event = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Start:
    """What one start took until every route listened."""

    whole_ms: float
    """From exec: Python, imports and validation included."""
    bound_ms: float
    """From the end of validation."""
    memory_mb: float
    """Resident, a moment later."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("counts", nargs="*", type=int, metavar="COUNT", help=f"routes; default: {COUNTS}")
    parser.add_argument("--runs", type=int, help=f"of which the median is taken; default: {RUNS}")


def run(options: argparse.Namespace) -> list[Row]:
    """One row per number of routes."""
    counts = options.counts or (QUICK_COUNTS if options.quick else COUNTS)
    runs = options.runs or (QUICK_RUNS if options.quick else RUNS)
    _check_descriptors(max(counts))
    return [_measure(count, runs) for count in counts]


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
    """Reading and validating the file, as the reload's thread does."""
    began = time.perf_counter()
    assert len(load(path, {}).routes) == count
    return _ms(time.perf_counter() - began)


def _start(path: Path, log: Path, count: int) -> Start:
    with _Agent(path, log) as agent:
        started = agent.wait_for("agent.started")
        assert (started["routes"], started["quarantined"]) == (count, 0), started
        listening = [_time(event) for event in agent.events("listener.bound")]
        assert len(listening) == count
        loaded = _time(agent.wait_for("config.loaded"))
        time.sleep(SETTLE_S)
        return Start(_ms(max(listening) - agent.began), _ms(max(listening) - loaded), agent.memory_mb)


def _edit(path: Path, log: Path, ports: list[int], runs: int) -> list[tuple[float, float]]:
    """From the end of the quiet time until the route that was edited listens on its new port, and until all is said."""
    *used, spare = ports
    edited = len(used) // 2
    times = []
    with _Agent(path, log) as agent:
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
            times.append((_ms(_time(bound) - quiet), _ms(_time(applied) - quiet)))
    return times


class _Agent:
    """``pomagent run`` in a process of its own, whose log is read once, however long it gets."""

    def __init__(self, path: Path, log: Path) -> None:
        self._path = path
        self._log = log
        self._events: list[Event] = []
        self._rest = ""
        self.began = 0.0

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            output = undo.enter_context(self._log.open("wb"))
            self._reader = undo.enter_context(self._log.open())
            environment = clean_environment(POMAGENT_AGENT__LOG_FORMAT="json", STATE_DIRECTORY=str(self._log.parent))
            self.began = time.time()
            self._process = subprocess.Popen(
                tethered(sys.executable, "-m", "pomagent", "run", "--config", str(self._path)),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
            )  # fmt: skip
            output.close()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(scaled(TIMEOUT_S))
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.close()

    def events(self, name: str) -> list[Event]:
        """Those so far, in the order of the log."""
        self._events.extend(self._news())
        return [event for event in self._events if event["event"] == name]

    @property
    def memory_mb(self) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)

    def wait_for(self, name: str, count: int = 1) -> Event:
        end = time.monotonic() + scaled(TIMEOUT_S)
        while len(found := self.events(name)) < count:
            if self._process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"no {name} from the agent; its log ends with:\n{self._log.read_text()[-2000:]}")
            time.sleep(POLL_S)
        return found[count - 1]

    def _news(self) -> Iterator[Event]:
        *lines, self._rest = (self._rest + self._reader.read()).split("\n")
        yield from (json.loads(line) for line in lines if line.startswith("{"))


def _write(path: Path, ports: list[int]) -> None:
    """As editors do: a new file takes the place of the old one."""
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
    free = [port for port in range(FIRST_PORT, min(LAST_PORT, FIRST_PORT + 2 * count) + 1) if _is_free(port)][:count]
    if len(free) < count:
        raise SystemExit(f"only {len(free)} of {count} ports are free on {HOST}")
    return free


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _check_descriptors(count: int) -> None:
    """The agent raises the soft limit by itself; the hard one is the machine's."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + SPARE_DESCRIPTORS:
        raise SystemExit(f"{count} routes need {count + SPARE_DESCRIPTORS} descriptors, and ulimit -Hn is {hard}")


def _median(measure: Callable[[], float], runs: int) -> float:
    return statistics.median(measure() for _ in range(runs))


def _time(event: Event) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
