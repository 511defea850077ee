"""Descriptors are released after sessions of every ending, and the agent survives running out of them."""

import resource
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import wait_until
from tests.support.agent.agent_process import AgentProcess, connect, read_to_end
from tests.support.agent.bastion import ANY, Bastion, say

RESET = struct.pack("ii", 1, 0)


def test_descriptors_return_to_the_baseline_after_200_sessions_of_every_ending(bastion: Bastion) -> None:
    routes = dict.fromkeys(("echo", "hangup", "down", "answer"), ANY)
    agent = bastion.start(routes, defaults={"warm": "off"})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    agent.wait_for("session.closed")
    wait_until(lambda: bastion.gateway.edge.open_tunnels == 0)
    baseline = agent.descriptors()
    ports = {name: agent.port(name) for name in routes}
    with ThreadPoolExecutor(20) as pool:  # 20 at a time: the gateway forwards a destination's end a second late
        done = [pool.submit(end, ports) for end in ENDINGS for _ in range(40)]
    assert [job.exception() for job in done] == [None] * 200
    ends = 200 + 1
    wait_until(lambda: len(agent.events("session.closed")) + len(agent.events("session.refused")) == ends, 20)
    wait_until(lambda: agent.descriptors() <= baseline, 20, "descriptors back at the baseline")
    wait_until(lambda: bastion.gateway.edge.open_tunnels == 0)


def test_descriptors_return_to_the_baseline_after_the_gateway_died_under_50_sessions(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "off"})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    agent.wait_for("session.closed")
    wait_until(lambda: bastion.gateway.edge.open_tunnels == 0)
    baseline = agent.descriptors()
    clients = [connect(agent.port("echo")) for _ in range(50)]
    for client in clients:
        assert say(client) == b"hello\n"
    bastion.gateway.edge.kill()
    agent.wait_for("session.closed", count=50, reason="lost", timeout_s=30)
    wait_until(lambda: agent.descriptors() <= baseline, 20)
    for client in clients:
        client.close()


def _settled_count(agent: AgentProcess) -> int:
    """Return the agent's open descriptors without those that a look at its files opens for a moment."""
    counts = []
    for _ in range(50):
        counts.append(agent.descriptors())
        time.sleep(0.01)
    return min(counts)


def test_clients_wait_without_a_busy_loop_while_descriptors_are_short(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "off"})
    _, hard = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (_settled_count(agent), hard))
    waiting = [socket.create_connection((LOOPBACK, agent.port("echo")), 20) for _ in range(3)]
    failed = agent.wait_for("listener.accept_failed", count=6)
    assert "raise LimitNOFILE of the service" in failed["error"]
    assert failed["retry_in_ms"] >= 100  # the pause grows
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (hard, hard))
    for client in waiting:
        assert say(client) == b"hello\n"
        client.close()


def test_client_is_refused_with_the_reason_when_no_descriptor_is_left_to_dial(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "off"})
    _, hard = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (agent.descriptors() + 1, hard))
    with pytest.raises(ConnectionResetError), connect(agent.port("echo")) as client:
        client.recv(1)
    refused = agent.wait_for("session.refused")
    assert "too many open files; raise LimitNOFILE of the service" in refused["error"]
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (hard, hard))
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"


def _closed_by_the_client(ports: dict[str, int]) -> None:
    with connect(ports["echo"]) as client:
        assert say(client) == b"hello\n"


def _reset_by_the_client(ports: dict[str, int]) -> None:
    with connect(ports["echo"]) as client:
        assert say(client) == b"hello\n"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def _ended_by_the_destination(ports: dict[str, int]) -> None:
    with connect(ports["hangup"]) as client:
        assert read_to_end(client) == b""


def _refused(ports: dict[str, int]) -> None:
    with pytest.raises(ConnectionResetError), connect(ports["down"]) as client:
        client.recv(1)


def _half_closed(ports: dict[str, int]) -> None:
    with connect(ports["answer"]) as client:
        client.sendall(b"1 the answer\n")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"the answer\n"


ENDINGS = (_closed_by_the_client, _reset_by_the_client, _ended_by_the_destination, _refused, _half_closed)
