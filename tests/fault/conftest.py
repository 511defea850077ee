"""Fixtures for fault tests: a bastion, and downloads that stall while the other tests run."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.facade import Gateway
from tests.support.agent.agent_process import AgentProcess, connect
from tests.support.agent.bastion import ANY, Bastion

STALLED = "stalled_downloads"
SIZES = {1: 300_000, 2: 1_000_000, 3: 20_000_000}
"""Lengths of downloads by seed: below the read-ahead limit, above it, and above all buffers together."""


class StalledDownloads:
    """Downloads of which the clients read only the first byte."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent = agent
        self.clients: dict[int, socket.socket] = {}
        for seed, length in SIZES.items():
            client = connect(agent.port("download"), timeout_s=60)
            client.sendall(f"{seed} {length}\n".encode())
            assert client.recv(1, socket.MSG_PEEK)
            self.clients[seed] = client
        self._since = time.monotonic()

    def stall_for(self, seconds: float) -> None:
        """Wait until the downloads have stalled for this time, the time of other tests included. Blocks."""
        time.sleep(max(0.0, seconds - (time.monotonic() - self._since)))


@pytest.fixture(scope="session")
def stalled_downloads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StalledDownloads]:
    with Gateway() as own:
        here = Bastion(own, tmp_path_factory.mktemp("stalled"))
        try:
            downloads = StalledDownloads(here.start({"download": ANY}))
            yield downloads
            for client in downloads.clients.values():
                client.close()
            here.stop()
        finally:
            here.kill()


@pytest.fixture(scope="session", autouse=True)
def begin_to_stall(request: pytest.FixtureRequest) -> None:
    """Start the downloads with the first test of this directory if a test needs them: they stall for a minute."""
    if any(STALLED in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue(STALLED)


@pytest.fixture
def own_gateway_bastion(own_gateway: Gateway, tmp_path: Path) -> Iterator[Bastion]:
    """A bastion host with its own gateway. The test may change the gateway's listener."""
    here = Bastion(own_gateway, tmp_path)
    try:
        yield here
        here.stop()
    finally:
        here.kill()
