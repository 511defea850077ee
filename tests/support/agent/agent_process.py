"""The real agent in a process of its own, its log read as events."""

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
    """Ours, without what would configure an agent behind its file's back."""
    hidden = ("POMAGENT_", "NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)} | more


def pomagent(*arguments: str, stdin: bytes = b"", timeout_s: float = 60, **environment: str) -> Any:
    """Run one command to its end; the result has ``returncode``, ``stdout`` and ``stderr`` as text."""
    done = processes.run(
        [sys.executable, "-m", "pomagent", *arguments], input=stdin, capture_output=True, check=False,
        timeout=scaled(timeout_s), env=clean_environment(**environment),
    )  # fmt: skip
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class AgentProcess:
    """``pomagent run`` on a file; a context manager that stops it and looks at how it ended."""

    def __init__(
        self, settings: Path, *arguments: str, sockets: Sequence[tuple[str, socket.socket]] = (),
        program: Path | str = "", **environment: str,
    ) -> None:  # fmt: skip
        """``sockets``, by their names, are passed to it as systemd does; ``program`` is a file, or Python code."""
        self.settings = settings
        self._log = EventLog(settings.parent / "agent.log")
        # Each agent has places of its own, or they would meet in those of the user who runs the tests.
        self.session_limit = {
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
                    **self.session_limit, **environment,
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
        """The agent's own: the tether in front of it has exec'ed it."""
        return self.process.pid

    @property
    def log(self) -> str:
        return self._log.text

    def events(self, name: str = "", **fields: object) -> list[Event]:
        """The events of that name that have these fields, in the order of the log."""
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
        """The local port of a route, which it was given last."""
        self.wait_for("listener.bound", route=route)
        return int(self.events("listener.bound", route=route)[-1]["listen"].rpartition(":")[2])

    def command(self, *arguments: str) -> Any:
        """Run a command of pomagent's that talks to this agent."""
        return pomagent(*arguments, "--config", str(self.settings), **self.session_limit)

    def status(self) -> dict[str, Any]:
        """What the agent says of itself: the document that ``pomagent status --json`` prints."""
        document = ask(Path(self.session_limit["POMAGENT_STATUS__CONTROL_SOCKET"]), "GET", "/status")
        minted.search(json.dumps(document), "the status of an agent")
        return document

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """Ask it to stop, unless it has ended, and return its exit code."""
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
    """An application's connection to a local port."""
    return socket.create_connection((LOOPBACK, port), scaled(timeout_s))


def read_to_end(connection: socket.socket) -> bytes:
    """Everything until the end; raises ConnectionResetError at a reset."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def _matches(event: Event, name: str, fields: Mapping[str, object]) -> bool:
    return (not name or event["event"] == name) and all(event.get(key) == value for key, value in fields.items())
