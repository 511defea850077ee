"""Runs the measured agent in its own process and reads its JSON log and /proc."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeAlias

from scripts import bench_process
from tests.gateway.tether import tethered
from tests.gateway.waiting import scaled
from tests.support.agent.agent_process import clean_environment

POLL_S = 0.02
TIMEOUT_S = 120

Event: TypeAlias = dict[str, Any]
Row: TypeAlias = dict[str, Any]
"""One row of figures by column. None stands where nothing was measured."""
Tables: TypeAlias = dict[str, list[Row]]
"""Tables by their titles."""


class BenchedAgent:
    """``pomagent run`` in its own process. Each line of its log is read once."""

    def __init__(self, path: Path, log: Path, program: Sequence[str] = ()) -> None:
        """``program`` replaces ``python -m pomagent``."""
        self._program = program or (sys.executable, "-m", "pomagent")
        self._path = path
        self._log = log
        self._events: list[Event] = []
        self._rest = ""
        self.began = 0.0

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            output = undo.enter_context(self._log.open("wb"))
            self._reader = undo.enter_context(self._log.open())
            own = self._log.parent  # its own paths: with the defaults all agents of this user share them
            environment = clean_environment(
                POMAGENT_AGENT__LOG_FORMAT="json", STATE_DIRECTORY=str(own),
                POMAGENT_STATUS__CONTROL_SOCKET=str(own / "control.sock"),
            )  # fmt: skip
            self.began = time.time()
            self._process = subprocess.Popen(
                tethered(*self._program, "run", "--config", str(self._path)),
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
        """Return the events with that name so far, in the order of the log."""
        self._events.extend(self._news())
        return [event for event in self._events if event["event"] == name]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def cpu_s(self) -> float:
        """Processor time of all threads so far, in steps of 10 ms."""
        return bench_process.cpu_s(self.pid)

    def port(self, route: str) -> int:
        """Return the local port of a route that listens."""
        bound = next(event for event in self.events("listener.bound") if event["route"] == route)
        return int(bound["listen"].rpartition(":")[2])

    @property
    def memory_mb(self) -> float:
        return round(bench_process.memory_kb(self.pid) / 1024, 1)

    def wait_for(self, name: str, count: int = 1) -> Event:
        self.wait_until(lambda: len(self.events(name)) >= count, f"no {name} from the agent")
        return self.events(name)[count - 1]

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until the condition holds. Raises if the agent ends first. Blocks."""
        end = time.monotonic() + scaled(TIMEOUT_S)
        while not condition():
            if self._process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{what}; the agent's log ends with:\n{self._log.read_text()[-2000:]}")
            time.sleep(POLL_S)

    def _news(self) -> Iterator[Event]:
        *lines, self._rest = (self._rest + self._reader.read()).split("\n")
        yield from (json.loads(line) for line in lines if line.startswith("{"))


def seconds_of(event: Event) -> float:
    """Return when an event was logged, in seconds of the wall clock."""
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def percentile(values: list[float], percent: int) -> float:
    """Return a percentile by nearest rank. The median is the 50th."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
