"""Runs the real agent on files that are edited meanwhile, with routes that need no gateway."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from tests.gateway.tether import tethered
from tests.gateway.waiting import wait_until
from tests.support.agent import processes
from tests.support.agent.agent_process import AgentProcess, clean_environment
from tests.support.agent.event_log import EventLog

HOST: Final = f"127.{os.getpid() // 250 % 250 + 1}.{os.getpid() % 250 + 1}.1"
"""A loopback address that only this process uses, so that every port stays free."""
HEAD: Final = '[status]\nlisten = ""\n\n[defaults]\nwarm = "off"\n'
NEVER_S: Final = 3600.0
"""Poll interval that keeps the poll from finding what a notification missed."""
SOON_S: Final = 0.1
START: Final = """
from pomagent.reload.watcher import Watch
Watch.__init__.__kwdefaults__["poll_interval_s"] = {}
from pomagent.__main__ import main
main()
"""


def toml(*ports: int, head: str = HEAD) -> str:
    """Return a configuration with a route for each port."""
    return head + "".join(map(route, ports))


def route(port: int) -> str:
    return f'\n[[routes]]\nname = "r{port}"\nfrom = "tcp+https://edge.invalid:{port}"\nlisten = "{HOST}:{port}"\n'


def ports_of(*texts: str) -> set[int]:
    """Return the ports on which the routes of these files listen."""
    return {int(found) for text in texts for found in re.findall(rf'^listen = "{HOST}:(\d+)"$', text, re.MULTILINE)}


def sha(*files: tuple[Path, str]) -> str:
    """Return the hash that the agent logs for these files, the main file first."""
    digest = hashlib.sha256()
    for path, text in files:
        tomllib.loads(text)
        digest.update(b"%s\0%d\0%s" % (os.fsencode(path), len(text.encode()), text.encode()))
    return digest.hexdigest()[:12]


class EditedAgent(AgentProcess):
    """An agent that logs outside the directory of its file, because tests replace that directory.

    ``prefix`` is a command that runs the agent in its own namespaces.
    """

    def __init__(self, settings: Path, *prefix: str, poll_interval_s: float = NEVER_S) -> None:
        self.settings = settings
        self.known = 0
        """Applied states that earlier tests have checked."""
        beside = settings.parent.parent
        self._log = EventLog(beside / "agent.log")
        self.environment = {
            "POMAGENT_STATUS__CONTROL_SOCKET": str(beside / "control.sock"),
            "STATE_DIRECTORY": str(beside / "state"),
        }
        start = START.format(poll_interval_s)
        with self._log.path.open("wb") as output:
            self.process = processes.Process(
                [*prefix, *tethered(sys.executable, "-c", start, "run", "--config", str(settings))],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env=clean_environment(
                    POMAGENT_AGENT__LOG_LEVEL="debug", POMAGENT_AGENT__LOG_FORMAT="json", **self.environment
                ),
            )  # fmt: skip

    @property
    def applied(self) -> list[str]:
        """Hashes of the applied edits, in order."""
        return [event["sha"] for event in self.events("config.applied")]

    @property
    def looks(self) -> int:
        """How often the files were read without an edit being applied."""
        return len(self.events("config.unchanged")) + len(self.events("config.rejected"))

    def look_now(self) -> None:
        """Send SIGHUP and wait until the agent has read its unchanged files. Blocks."""
        before = self.looks
        self.signal(signal.SIGHUP)
        wait_until(lambda: self.looks > before, what="an answer to SIGHUP")

    def must_listen_on(self, ports: Iterable[int]) -> None:
        """Wait until the agent listens on exactly these ports."""
        expected = set(ports)
        wait_until(lambda: self.listening == expected, what=f"{expected}, not {self.listening}")

    @property
    def listening(self) -> set[int]:
        """The ports of the agent's listening sockets, from the kernel."""
        descriptors = Path(f"/proc/{self.pid}/fd")
        inodes = {str(entry.readlink()) for entry in descriptors.iterdir() if entry.is_symlink()}
        table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return {int(row[1].split(":")[1], 16) for row in table if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


class Desk:
    """A directory with agent.toml and the agents that run on that file."""

    def __init__(self, directory: Path) -> None:
        self.beside = directory
        self.etc = directory / "etc"
        self.etc.mkdir()
        self.path = self.etc / "agent.toml"
        self._agents: list[EditedAgent] = []

    def start(self, text: str = "", *prefix: str, poll_interval_s: float = NEVER_S) -> EditedAgent:
        """Run an agent on this text, or on the present file, and wait until it serves and its watch is armed."""
        if text:
            self.path.write_text(text)
        agent = EditedAgent(self.path, *prefix, poll_interval_s=poll_interval_s)
        self._agents.append(agent)
        agent.__enter__()
        wait_until(lambda: agent.looks, what="the look that follows the arming of the watch")
        return agent

    def close(self) -> None:
        """Stop every agent and check its exit code and log."""
        for agent in self._agents:
            agent.__exit__(None, None, None)

    def kill(self) -> None:
        """Kill the agents that a failed test left running."""
        for agent in self._agents:
            agent.process.kill()
            agent.process.wait()


def must_have_applied(agent: EditedAgent, *states: str, ports: Iterable[int], for_nothing: int = 2) -> None:
    """Wait until the last of these states is applied, and check that each was applied exactly once and no other since.

    Leftovers of an editor may make the agent read unchanged files up to ``for_nothing`` times.
    """
    before = agent.looks
    agent.wait_for("config.applied", sha=states[-1])
    agent.must_listen_on(ports)
    agent.look_now()
    assert agent.applied[agent.known :] == list(states), agent.log
    assert agent.looks - before <= for_nothing + 1, agent.log


def in_namespace(*kinds: str, prepare: str, arguments: Iterable[str | Path] = ()) -> list[str]:
    """Return a command prefix that enters new namespaces and runs ``prepare`` there. Skips the test if it cannot."""
    as_root = [] if os.geteuid() == 0 and "--user" not in kinds else ["--user", "--map-root-user"]
    unshare = ["unshare", *{*kinds, *as_root}]
    shell = [*unshare, "sh", "-ec", f'{prepare}; shift {len(list(arguments))}; exec "$@"', "sh", *map(str, arguments)]
    try:
        done = processes.run([*shell, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if done.returncode:
        pytest.skip(f"no namespaces here: {done.stderr}")
    return shell
