"""Puts a steady load on a port and records the outcome of each connection."""

import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.gateway.tether import tethered
from tests.gateway.waiting import wait_until
from tests.support.agent import processes
from tests.support.load.arrivals import PATIENCE_S

ROOT = Path(__file__).parents[3]
PER_SECOND = 50


@dataclass(frozen=True)
class Arrival:
    """The outcome of one connection."""

    wait_ms: float
    """Milliseconds from connecting to the answer."""
    error: str


class Load:
    """A context manager that keeps connecting to an echo port. Each connection sends a line and expects it back."""

    def __init__(self, port: int) -> None:
        self._process = processes.Process(
            tethered(sys.executable, "-m", "tests.support.load.arrivals", str(port), str(PER_SECOND)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        self._arrivals: dict[int, Arrival] = {}
        self._counts: list[int] = []
        """Connections so far, one count for each time that it was requested."""
        self._known = 0
        """Connections with a lower number all have an outcome."""
        self._thread = threading.Thread(target=self._read, name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        self.go_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            self._thread.join()
        assert process.returncode == 0

    def go_on(self, count: int = PER_SECOND // 2) -> None:
        """Wait until ``count`` more connections have an outcome. Blocks."""
        upto = self._come_so_far() + count
        wait_until(lambda: self._known >= upto, 60 + PATIENCE_S, f"{count} more connections")

    @property
    def count(self) -> int:
        return len(self._arrivals)

    @property
    def refused(self) -> list[str]:
        """The errors of connections that were refused."""
        return [error for error in self._errors() if error.startswith("ConnectionRefusedError")]

    @property
    def lost(self) -> list[str]:
        """The errors of connections that were accepted and not answered."""
        return [error for error in self._errors() if not error.startswith("ConnectionRefusedError")]

    @property
    def longest_wait_ms(self) -> int:
        """The longest wait of an answered connection."""
        return round(max(arrival.wait_ms for arrival in self._arrivals.copy().values() if not arrival.error))

    def _come_so_far(self) -> int:
        """Request the number of connections so far and return it. Blocks."""
        assert self._process.stdin is not None
        before = len(self._counts)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        wait_until(lambda: len(self._counts) > before, PATIENCE_S, "the connections are counted")
        return self._counts[-1]

    def _errors(self) -> list[str]:
        return [arrival.error for arrival in self._arrivals.copy().values() if arrival.error]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("come"):
                self._counts.append(int(line.split()[1]))
                continue
            number, wait_ms, error = line.rstrip("\n").split(" ", 2)
            self._arrivals[int(number)] = Arrival(float(wait_ms), error)
            while self._known in self._arrivals:
                self._known += 1
