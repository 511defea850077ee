"""A bastion host in a directory, with its agent.toml, its token and its agents."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.gateway.agent_toml import Listen, Table, agent_toml, write_token
from tests.gateway.facade import Gateway
from tests.gateway.ports import LOOPBACK
from tests.support.agent.agent_process import AgentProcess

ANY = f"{LOOPBACK}:0"
"""A listen address with a port that the kernel chooses. ``AgentProcess.port`` returns the port."""


def on(port: int) -> str:
    """Return a loopback listen address with this port."""
    return f"{LOOPBACK}:{port}"


class Bastion:
    """Runs agents on an agent.toml that the test edits meanwhile."""

    def __init__(self, gateway: Gateway, directory: Path) -> None:
        self.gateway = gateway
        self.directory = directory
        self.path = directory / "agent.toml"
        self.token_file = directory / "token"
        self.agents: list[AgentProcess] = []
        self.replace_token(gateway.token)

    def save(self, routes: Listen, **tables: Table) -> Path:
        """Replace agent.toml by a rename, with ``routes`` and ``tables`` as in ``write_agent_toml``."""
        return self.save_text(agent_toml(self.gateway, routes, **{"status": {"listen": ""}, **tables}))

    def save_text(self, text: str) -> Path:
        """Write a draft and rename it to agent.toml."""
        draft = self.directory / "agent.toml.draft"
        draft.write_text(text)
        return draft.replace(self.path)

    def replace_token(self, token: str) -> None:
        """Write a draft and rename it to the token file."""
        draft = self.directory / "token.draft"
        write_token(draft, token)
        draft.replace(self.token_file)

    def start(
        self, routes: Listen, environment: dict[str, str] | None = None, *, program: Path | str = "", **tables: Table
    ) -> AgentProcess:
        """Run an agent on a file with these routes and wait until the agent serves."""
        agent = self.launch(routes, environment, program=program, **tables)
        agent.__enter__()
        return agent

    def resume(
        self, environment: dict[str, str] | None = None, sockets: Sequence[tuple[str, socket.socket]] = ()
    ) -> AgentProcess:
        """Run an agent on the present file, with a new log, and wait until the agent serves."""
        log = self.directory / "agent.log"
        if log.exists():
            log.rename(self.directory / f"agent-{len(self.agents)}.log")
        agent = AgentProcess(self.path, sockets=sockets, **(environment or {}))
        self.agents.append(agent)
        agent.__enter__()
        return agent

    def launch(
        self, routes: Listen, environment: dict[str, str] | None = None, *, program: Path | str = "", **tables: Table
    ) -> AgentProcess:
        """Run an agent on a file with these routes, without waiting."""
        self.save(routes, **tables)
        agent = AgentProcess(self.path, program=program, **(environment or {}))
        self.agents.append(agent)
        return agent

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop every agent and check how it ended. No agent outlives the test."""
        try:
            self.stop()
        finally:
            self.kill()

    def stop(self) -> None:
        """Stop every agent and check its exit code and log."""
        for agent in self.agents:
            agent.__exit__(None, None, None)

    def kill(self) -> None:
        """Kill the agents that a failed test left running."""
        for agent in self.agents:
            agent.process.kill()
            agent.process.wait()


def say(client: socket.socket, data: bytes = b"hello\n") -> bytes:
    """Send bytes and return as many bytes of the answer."""
    client.sendall(data)
    return hear(client, len(data))


def hear(client: socket.socket, length: int) -> bytes:
    """Return exactly ``length`` bytes, or fewer if the connection ends."""
    data = b""
    while len(data) < length and (more := client.recv(length - len(data))):
        data += more
    return data


def refuses(port: int) -> bool:
    """Return whether a local port refuses connections."""
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) != 0


def listening_inode(port: int) -> int:
    """Return the inode of the socket that listens on a loopback port, 0 if there is none."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *rest = line.split()
        if state == "0A" and local == f"0100007F:{port:04X}":
            return int(rest[5])
    return 0
