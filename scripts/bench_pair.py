"""Runs the agent and Envoy as the client side by side, with one gateway and one server, in alternating turns."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import bench_process
from scripts.bench_agent import BenchedAgent
from scripts.bench_envoy import EnvoyClient
from scripts.bench_traffic import Traffic
from tests.gateway.agent_toml import write_agent_toml
from tests.gateway.facade import Gateway
from tests.support.agent.bastion import ANY

AGENT, ENVOY = "pomagent", "Envoy"
DESTINATION = "traffic.example.test:7000"


@dataclass(frozen=True, slots=True)
class Contender:
    """A local port that leads to the server, and the process behind it."""

    name: str
    port: int
    pid: int

    @property
    def cpu_s(self) -> float:
        return bench_process.cpu_s(self.pid)

    @property
    def memory_kb(self) -> int:
        return bench_process.memory_kb(self.pid)


@dataclass(frozen=True, slots=True)
class Pair:
    """Who is measured."""

    agent: BenchedAgent
    envoy: EnvoyClient
    path: Path
    """The path of agent.toml."""
    gateway: Gateway

    def contenders(self, route: str) -> list[Contender]:
        """Return the agent, by one of its routes, and Envoy."""
        return [
            Contender(AGENT, self.agent.port(route), self.agent.pid),
            Contender(ENVOY, self.envoy.port, self.envoy.pid),
        ]


@contextmanager
def pair(
    routes: Mapping[str, Mapping[str, Any]], program: Sequence[str] = (), transport: str = "http1"
) -> Iterator[Pair]:  # fmt: skip
    """Run an agent with these routes and Envoy. ``program`` replaces ``python -m pomagent``."""
    with ExitStack() as stack:
        traffic = stack.enter_context(Traffic())
        gateway = stack.enter_context(Gateway())
        gateway.add_route(DESTINATION, traffic.port)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pomagent-bench-")))
        path = write_routes(directory, gateway, routes, transport)
        agent = stack.enter_context(BenchedAgent(path, directory / "agent.log", program))
        agent.wait_for("agent.started")
        envoy = stack.enter_context(EnvoyClient(directory, gateway, gateway.port, DESTINATION))
        yield Pair(agent, envoy, path, gateway)


def write_routes(
    directory: Path, gateway: Gateway, routes: Mapping[str, Mapping[str, Any]], transport: str = "http1"
) -> Path:  # fmt: skip
    """Write the file of an agent with these routes to the server."""
    return write_agent_toml(
        directory, gateway,
        {name: {"from": f"tcp+https://{DESTINATION}", "listen": ANY, **keys} for name, keys in routes.items()},
        **{
            "gateways.demo": {"transport": transport}, "status": {"listen": ""},
            "defaults": {"max_sessions": 5000}, "agent": {"max_sessions": 5000},
        },
    )  # fmt: skip


def in_turns(contenders: Sequence[Contender], rounds: int) -> Iterator[Contender]:
    """Yield each contender once a round, in alternating order, so that disturbances affect both alike."""
    for index in range(rounds):
        yield from contenders if index % 2 == 0 else reversed(contenders)
