"""Finds the distribution's programs, starts them, and waits until they serve."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.gateway.ports import LOOPBACK
from tests.gateway.tether import tethered
from tests.gateway.waiting import scaled, wait_until
from tests.support.agent import processes
from tests.support.agent.agent_process import clean_environment

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 20
RUN_TIMEOUT_S = 60
LOG_TAIL_CHARACTERS = 4000


def program(name: str) -> str:
    """Return the path of a program, or skip the test. Also searches the directories of Debian's servers."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", *map(str, versions)])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str, stdin: bytes = b"") -> bytes:
    """Return the standard output of a client. Fails on an error or output on standard error."""
    done = processes.run(
        command, input=stdin, capture_output=True, check=False, timeout=scaled(RUN_TIMEOUT_S), env=clean_environment()
    )
    assert (done.returncode, done.stderr) == (0, b""), done.stdout[-2000:]
    return done.stdout


class Server:
    """A server's process and its log."""

    def __init__(self, log: Path, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        self._log_file = log
        with log.open("ab") as output:
            self.process = processes.Process(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env=environment,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]

    def wait(self, is_ready: Callable[[], bool]) -> None:
        """Wait until the server is ready. Blocks. Fails at once if it has ended."""
        wait_until(lambda: self.process.poll() is not None or is_ready(), START_TIMEOUT_S, f"{self.process.args}")
        assert self.process.poll() is None, self.log

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server, with SIGKILL after the timeout."""
        self.process.send_signal(number)
        try:
            self.process.wait(scaled(STOP_TIMEOUT_S))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def serve(log: Path, *command: str) -> Server:
    """A server that cannot outlive the tests."""
    return Server(log, tethered(*command))


def listens(port: int) -> bool:
    """Return whether a server accepts connections on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0
