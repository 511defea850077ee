"""The files of Unix sockets are removed while the agent runs."""

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.waiting import wait_until
from tests.support.agent.bastion import Bastion, say


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: a Unix socket's path is limited to 107 bytes."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def test_removed_sockets_are_bound_again_and_a_foreign_file_stays(bastion: Bastion, directory: Path) -> None:
    route, blocked = directory / "echo.sock", directory / "public.sock"
    agent = bastion.start({"echo": f"unix:{route}", "public": f"unix:{blocked}"})
    control = Path(agent.environment["POMAGENT_STATUS__CONTROL_SOCKET"])
    wait_until(control.exists, 20)
    for path in (route, blocked, control):
        path.unlink()
    blocked.write_text("not ours")
    agent.wait_for("listener.lost", count=3)
    wait_until(lambda: route.exists() and control.exists(), 20)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(route))
        assert say(client) == b"hello\n"
    states = {found["name"]: found for found in agent.status()["routes"]}
    assert states["public"]["state"] == "quarantined"
    assert "its file was replaced" in states["public"]["reason"]
    assert blocked.read_text() == "not ours"
