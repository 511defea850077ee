"""Runs a real headless Chromium as a ``--browser-cmd``."""

import json
import os
import signal
import sqlite3
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import Any, Self

from tests.conftest import wait_until
from tests.gateway.ports import LOOPBACK, unused_port
from tests.gateway.waiting import scaled

PROGRAM = "/usr/bin/chromium"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--ignore-certificate-errors",
)


class Chromium:
    """A context manager that ends every Chromium that was started.

    Every name of the test gateway resolves to loopback, and its certificate is not verified.
    """

    def __init__(self, directory: Path) -> None:
        self.profile = directory / "chromium"
        self._pids = directory / "chromium.pids"
        self._port = unused_port()
        self._script = directory / "chromium.sh"
        flags = [
            *FLAGS, f"--user-data-dir={self.profile}", f"--remote-debugging-port={self._port}",
            f"--host-resolver-rules=MAP *.example.test {LOOPBACK}",
        ]  # fmt: skip
        self._script.write_text(
            f"#!/bin/sh\necho $$ >>{quote(str(self._pids))}\n"
            f'exec {PROGRAM} {" ".join(map(quote, flags))} "$@" >{quote(str(directory / "chromium.log"))} 2>&1\n'
        )
        self._script.chmod(0o755)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def command(self) -> str:
        return str(self._script)

    @property
    def starts(self) -> int:
        return len(self._pids.read_text().split()) if self._pids.exists() else 0

    def pages(self) -> list[dict[str, Any]]:
        """Return the ``url`` and ``title`` of each tab."""
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self._port}/json/list", timeout=scaled(10)) as answer:
            found: list[dict[str, Any]] = [page for page in json.load(answer) if page["type"] == "page"]
        return found

    def history(self) -> list[str]:
        """Return the addresses in its history, which Chromium writes some seconds late."""
        try:
            with closing(sqlite3.connect(f"file:{self.profile}/Default/History?immutable=1", uri=True)) as database:
                return [url for (url,) in database.execute("SELECT url FROM urls WHERE NOT hidden")]
        except sqlite3.Error:  # it is being written
            return []

    def stop(self) -> None:
        """Send SIGTERM, so that Chromium writes its history, and wait until it has ended. Blocks."""
        for pid in map(int, self._pids.read_text().split() if self._pids.exists() else ()):
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
            with suppress(AssertionError):
                wait_until(lambda pid=pid: not _runs(pid), 10)
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
