"""The gateway restarts while clients keep coming: they wait for it, for a while, unless waiting cannot help."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle

import pytest

from tests.gateway.facade import destination
from tests.gateway.waiting import scaled
from tests.support.agent.agent_process import AgentProcess, connect
from tests.support.agent.bastion import ANY, Bastion, say

HOLD_S = 8.0
ROUTES = {
    f"{name}-{number}": {"from": f"tcp+https://{destination('echo')}", "listen": ANY, "warm": warm}
    for name, warm in (("cold", "off"), ("tls", "tls"), ("warm", "tunnel"))
    for number in range(2)
}


def is_served(agent: AgentProcess, route: str) -> bool:
    """Return whether a new client of this route gets its answer. Blocks."""
    try:
        with connect(agent.port(route), timeout_s=scaled(30)) as client:
            return say(client) == b"hello\n"
    except ConnectionResetError:
        return False


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(100) as threads:
        yield threads


@pytest.mark.parametrize("down_s", [1, 3, 5])
def test_restart_refuses_no_new_client(bastion: Bastion, clients: ThreadPoolExecutor, down_s: float) -> None:
    agent = bastion.start(ROUTES, defaults={"hold_s": scaled(HOLD_S), "wait_timeout_s": scaled(20)})
    assert all(is_served(agent, route) for route in ROUTES)
    bastion.gateway.edge.kill()
    come: list[Future[bool]] = []
    back_at = time.monotonic() + down_s
    for route in cycle(ROUTES):
        if time.monotonic() >= back_at:
            break
        come.append(clients.submit(is_served, agent, route))
        time.sleep(0.1)
    bastion.gateway.edge.start()
    assert [client.result() for client in come] == [True] * len(come)
    assert not agent.events("session.refused")


def test_longer_outage_refuses_clients_until_the_first_dial_after_the_return(bastion: Bastion) -> None:
    agent = bastion.start(ROUTES, defaults={"hold_s": 2})
    assert all(is_served(agent, route) for route in ROUTES)
    bastion.gateway.edge.kill()
    for count, route in enumerate(ROUTES, 1):
        assert not is_served(agent, route)
        refused = agent.wait_for("session.refused", count=count)
        assert refused["recovery"] == "retry"
    assert agent.events("session.refused")[0]["waited_ms"] >= 1500
    bastion.gateway.edge.start()
    assert all(is_served(agent, route) for route in ROUTES)


def test_route_that_is_denied_meanwhile_is_refused_at_once(
    own_gateway_bastion: Bastion, clients: ThreadPoolExecutor
) -> None:
    here = own_gateway_bastion
    here.gateway.add_route("other.example.com:7", here.gateway.destinations.address("echo")[1])
    routes = {"echo": {"listen": ANY, "warm": "off"}, "other.example.com:7": {"listen": ANY, "warm": "off"}}
    agent = here.start(routes, defaults={"hold_s": 600, "wait_timeout_s": 600})
    assert is_served(agent, "echo")
    assert is_served(agent, "other.example.com-7")
    here.gateway.edge.kill()
    waiting = [clients.submit(is_served, agent, route) for route in ("echo", "other.example.com-7")]
    agent.wait_for("tunnel.failed", count=2)
    here.gateway.remove_route("other.example.com:7")
    here.gateway.edge.start()
    assert [client.result() for client in waiting] == [True, False]
    assert agent.wait_for("session.refused", route="other.example.com-7")["recovery"] == "operator"


def test_route_that_holds_no_client_refuses_it_at_once(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "off", "hold_s": 0, "wait_timeout_s": 600})
    assert is_served(agent, "echo")
    bastion.gateway.edge.kill()
    assert not is_served(agent, "echo")


def test_route_that_never_served_holds_no_client(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "off", "hold_s": 600, "wait_timeout_s": 600})
    bastion.gateway.edge.kill()
    assert not is_served(agent, "echo")
