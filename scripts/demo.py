"""Shows the agent with an embedded gateway, two private servers behind it, and two local ports that lead there.

Run it as ``scripts/demo``. Everything is on loopback and is removed afterwards.
"""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.gateway import minted
from tests.gateway.agent_toml import write_agent_toml
from tests.gateway.facade import Gateway
from tests.gateway.ports import LOOPBACK, unused_port
from tests.gateway.tether import tethered
from tests.gateway.waiting import scaled

READY_TIMEOUT_S = 20
ANSWER_TIMEOUT_S = 5
STOP_TIMEOUT_S = 10
POLL_S = 0.1
HELLO = b"hello through the tunnel\n"


class DemoError(Exception):
    """The agent did not do what this demo shows. The message describes the difference."""


class Agent:
    """``pomagent run`` in its own process, with its log in a file."""

    def __init__(self, settings: Path, log: Path) -> None:
        self.log = log
        command = tethered(sys.executable, "-m", "pomagent", "run", "--config", str(settings))
        with log.open("wb") as output:
            # Its own session: Ctrl-C reaches the demo, which then lets the agent drain.
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, env=_environment(settings.parent), start_new_session=True
            )

    @property
    def exit_code(self) -> int | None:
        """The exit code, None while the agent runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Send SIGTERM and wait for the drain. Kill the agent if it does not end. Blocks."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)  # a supervisor's stop cleans up like Ctrl-C
    try:
        with Gateway() as gateway, tempfile.TemporaryDirectory(prefix="pomagent-demo-") as directory:
            return _show(gateway, Path(directory), stay="--check" not in sys.argv[1:])
    except KeyboardInterrupt:
        return 0


def _show(gateway: Gateway, directory: Path, *, stay: bool) -> int:
    page, echo = unused_port(), unused_port()
    settings = _write_settings(directory, gateway, page, echo)
    with _running(settings, directory / "agent.log") as agent:
        try:
            _prove(agent, "an HTTP page", lambda: _fetch_page(page))
            _prove(agent, "an echo", lambda: _echo(echo))
            _check_log(agent)
        except DemoError as error:
            print(f"\ndemo: {error}\n\nThe agent's log:\n{agent.log.read_text(errors='replace') or '(empty)'}")
            return 1
        if stay:
            _explain(settings, page, echo)
            _follow(agent)
    return 0


def _write_settings(directory: Path, gateway: Gateway, page: int, echo: int) -> Path:
    return write_agent_toml(
        directory,
        gateway,
        {"page": f"{LOOPBACK}:{page}", "echo": f"{LOOPBACK}:{echo}"},
        agent={"log_format": "console"},
        status={"listen": "", "control_socket": str(directory / "control.sock")},
    )


@contextlib.contextmanager
def _running(settings: Path, log: Path) -> Iterator[Agent]:
    agent = Agent(settings, log)
    try:
        yield agent
    finally:
        agent.stop()


def _prove(agent: Agent, what: str, attempt: Callable[[], bool]) -> None:
    """Call until it succeeds. An OSError in the meantime means "not yet". Blocks."""
    end = time.monotonic() + scaled(READY_TIMEOUT_S)
    problem: object = "a wrong answer"
    while time.monotonic() < end:
        if agent.exit_code is not None:
            raise DemoError(f"the agent ended with exit code {agent.exit_code} instead of serving")
        try:
            if attempt():
                print(f"demo: {what} came through its tunnel")
                return
        except (OSError, http.client.HTTPException) as error:
            problem = error
        time.sleep(POLL_S)
    raise DemoError(f"{what} did not come through its tunnel: {problem}")


def _check_log(agent: Agent) -> None:
    if minted.is_in(agent.log.read_text(errors="replace")):
        raise DemoError("the agent's log shows its token")


def _fetch_page(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/")
        return b"It works" in connection.getresponse().read()
    finally:
        connection.close()


def _echo(port: int) -> bool:
    with socket.create_connection((LOOPBACK, port), ANSWER_TIMEOUT_S) as connection:
        connection.sendall(HELLO)
        return connection.makefile("rb").readline() == HELLO


def _explain(settings: Path, page: int, echo: int) -> None:
    pomagent = f"{Path(sys.prefix) / 'bin/pomagent'} {{}} --config {settings}".format
    print(f"""
Try it, in another terminal:

    curl http://{LOOPBACK}:{page}
    printf 'hello\\n' | nc -w 1 {LOOPBACK} {echo}
    {pomagent("status")}

Edit the routes and save: the agent applies the edit, and open connections continue.

    $EDITOR {settings}
    {pomagent("check --diff")}

Below is the agent's log. Ctrl-C stops everything.
""")


def _follow(agent: Agent) -> None:
    """Print the agent's log as it grows, until the agent ends. Blocks."""
    with agent.log.open() as log:
        while agent.exit_code is None:
            for line in log:
                print(line, end="", flush=True)
            time.sleep(POLL_S)
        print(log.read(), end="")


def _environment(directory: Path) -> dict[str, str]:
    """Return this process's environment without variables that configure an agent. State stays in the demo."""
    hidden = ("POMAGENT_", "NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return ours | {"STATE_DIRECTORY": str(directory / "state")}


def _interrupt(*_signal: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
