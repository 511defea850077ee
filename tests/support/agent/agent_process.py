"""Runs the real agent in its own process and reads its log as events."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pomagent.admin.control.client import ask
from tests.gateway import minted
from tests.gateway.ports import LOOPBACK
from tests.gateway.tether import tethered
from tests.gateway.waiting import scaled, wait_until
from tests.support.agent import processes
from tests.support.agent.event_document import shortcomings
from tests.support.agent.event_log import Event, EventLog
from tests.support.agent.service_manager import passing

STOP_TIMEOUT_S = 20
MODULE = ["-m", "pomagent"]


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without variables that would configure an agent."""
    hidden = ("POMAGENT_", "NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)} | more


def pomagent(*arguments: str, stdin: bytes = b"", timeout_s: float = 60, **environment: str) -> Any:
    """Run one command to its end and return ``returncode``, ``stdout`` and ``stderr`` as text. Blocks."""
    done = processes.run(
        [sys.executable, "-m", "pomagent", *arguments], input=stdin, capture_output=True, check=False,
        timeout=scaled(timeout_s), env=clean_environment(**environment),
    )  # fmt: skip
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class AgentProcess:
    """``pomagent run`` on a file, as a context manager that stops the agent and checks how it ended."""

    def __init__(
        self, settings: Path, *arguments: str, sockets: Sequence[tuple[str, socket.socket]] = (),
        program: Path | str = "", **environment: str,
    ) -> None:  # fmt: skip
        """Start the agent. It inherits ``sockets`` as from systemd. ``program`` is an executable or Python code."""
        self.settings = settings
        self._log = EventLog(settings.parent / "agent.log")
        # Each agent has its own paths. With the defaults, all agents of this user would share them.
        self.environment = {
            "POMAGENT_STATUS__CONTROL_SOCKET": str(settings.parent / "control.sock"),
            "STATE_DIRECTORY": str(settings.parent / "state"),
        }
        begin = (
            [str(program)] if isinstance(program, Path) else [sys.executable, *(["-c", program] if program else MODULE)]
        )
        command = [*begin, "run", "--config", str(settings), *arguments]
        if sockets:
            command, variables = passing(sockets, *command)
            environment |= variables
        with self._log.path.open("ab") as output:
            self.process = processes.Process(
                tethered(*command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                pass_fds=[sock.fileno() for _, sock in sockets],
                env=clean_environment(
                    **{"POMAGENT_AGENT__LOG_LEVEL": "debug", "POMAGENT_AGENT__LOG_FORMAT": "json"},
                    **self.environment, **environment,
                ),
            )  # fmt: skip

    def __enter__(self) -> Self:
        self.wait_for("agent.started")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = self.stop()
        if error is None:
            assert code == 0, self.log
            assert not self.events("greenlet.crashed"), self.log
            assert not re.search(r"^Traceback|^Exception ignored", self.log, re.MULTILINE), self.log
            assert [each for event in self._log.events for each in shortcomings(event)] == []

    @property
    def pid(self) -> int:
        """The PID of the agent itself: the tether in front of it has exec'ed it."""
        return self.process.pid

    @property
    def log(self) -> str:
        return self._log.text

    def events(self, name: str = "", **fields: object) -> list[Event]:
        """Return the events with that name and these fields, in the order of the log."""
        return [event for event in self._log.events if _matches(event, name, fields)]

    def wait_for(self, name: str, count: int = 1, timeout_s: float = 20, **fields: object) -> Event:
        """Wait for the ``count``-th such event and return it."""

        def enough() -> bool:
            assert self.process.poll() is None or self.events(name, **fields), f"the agent has ended:\n{self.log}"
            return len(self.events(name, **fields)) >= count

        try:
            wait_until(enough, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"no {name} {fields} in the log:\n{self.log}") from error
        return self.events(name, **fields)[count - 1]

    def port(self, route: str) -> int:
        """Return the local port on which a route listened last."""
        self.wait_for("listener.bound", route=route)
        return int(self.events("listener.bound", route=route)[-1]["listen"].rpartition(":")[2])

    def command(self, *arguments: str) -> Any:
        """Run a pomagent command that talks to this agent."""
        return pomagent(*arguments, "--config", str(self.settings), **self.environment)

    def status(self) -> dict[str, Any]:
        """Return the document that ``pomagent status --json`` prints."""
        document = ask(Path(self.environment["POMAGENT_STATUS__CONTROL_SOCKET"]), "GET", "/status")
        minted.search(json.dumps(document), "the status of an agent")
        return document

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """Send SIGTERM unless the agent has ended, and return its exit code. Blocks."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.process.wait(scaled(STOP_TIMEOUT_S))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())


def connect(port: int, timeout_s: float = 20) -> socket.socket:
    """Connect to a local port, as an application does."""
    return socket.create_connection((LOOPBACK, port), scaled(timeout_s))


def read_to_end(connection: socket.socket) -> bytes:
    """Return everything until the end. Raises ConnectionResetError at a reset."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def _matches(event: Event, name: str, fields: Mapping[str, object]) -> bool:
    return (not name or event["event"] == name) and all(event.get(key) == value for key, value in fields.items())
