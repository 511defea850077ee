"""Runs ``pomagent tcp`` in its own process."""

import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.gateway.facade import Gateway
from tests.gateway.tether import tethered
from tests.gateway.waiting import scaled, wait_until
from tests.support.agent import processes
from tests.support.agent.agent_process import clean_environment

STOP_TIMEOUT_S = 20
LISTENING = "listening on "


def gateway_flags(gateway: Gateway, token_file: Path) -> list[str]:
    """Return the flags for a test gateway. Its certificate is valid for "localhost", which resolves."""
    return [
        *("--pomerium-url", f"https://localhost:{gateway.port}"),
        *("--service-account-file", str(token_file)),
        *("--alternate-ca-path", str(gateway.ca_file)),
    ]


class TcpProcess:
    """One forwarded destination, as a context manager that stops it and checks its exit code and output."""

    def __init__(self, directory: Path, *arguments: str, **environment: str) -> None:
        self._output, self._errors = directory / "tcp.out", directory / "tcp.err"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = processes.Process(
                tethered(sys.executable, "-m", "pomagent", "tcp", *arguments),
                stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True,
                env=clean_environment(**environment),
            )  # fmt: skip

    def __enter__(self) -> Self:
        wait_until(lambda: "\n" in self.output or self.process.poll() is not None, what="listening on")
        assert self.output.startswith(LISTENING), self.errors
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(scaled(STOP_TIMEOUT_S))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        if error is None:
            assert code == 0, self.errors
            assert "Traceback" not in self.errors

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    @property
    def address(self) -> tuple[str, int]:
        """The address that it prints."""
        host, _, port = self.output.splitlines()[0].removeprefix(LISTENING).rpartition(":")
        return host, int(port)
