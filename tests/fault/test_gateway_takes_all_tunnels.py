"""Other routes are unaffected when a gateway dies with hundreds of warm tunnels or a destination is firewalled."""

from collections.abc import Iterator

import pytest

from tests.fakes.gateway import black_hole
from tests.gateway.distance import Distance
from tests.gateway.facade import Gateway
from tests.gateway.ports import LOOPBACK
from tests.gateway.waiting import wait_until
from tests.support.agent.agent_process import AgentProcess, connect
from tests.support.agent.bastion import ANY, Bastion, on, say

ROUTES = 50
DEPTH = 4
MAX_DIALS = 8
FIREWALLED = "firewalled.example.test:7000"
CLIENTS = 24
MAX_DIALS_PER_ROUTE = 16


@pytest.fixture
def many(own_gateway: Gateway) -> list[str]:
    """Destinations of the gateway that the test kills."""
    port = own_gateway.destinations.address("echo")[1]
    return [own_gateway.add_route(f"many-{number}.example.test:7000", port) for number in range(ROUTES)]


@pytest.fixture
def relay(own_gateway: Gateway) -> Iterator[Distance]:
    with Distance((LOOPBACK, own_gateway.port), 0) as running:
        yield running


@pytest.fixture
def agent(bastion: Bastion, own_gateway: Gateway, many: list[str], relay: Distance) -> AgentProcess:
    """An agent with one route through the shared gateway and fifty through the gateway that the test kills."""
    own_gateway.authorizer.trust(bastion.gateway.token)
    mortal = {"url": own_gateway.url, "connect_to": on(relay.port), "ca_file": str(own_gateway.ca_file)}
    listen = {address: {"listen": ANY, "gateway": "mortal"} for address in many} | {"echo": {"listen": ANY}}
    warm = {"warm": "tunnel", "pool_min": DEPTH, "pool_max": DEPTH}
    return bastion.start(listen, defaults=warm, **{"gateways.mortal": mortal | {"max_dials": MAX_DIALS}})


def test_gateway_that_dies_and_returns_costs_one_log_line_and_no_stampede(
    agent: AgentProcess, own_gateway: Gateway, many: list[str], relay: Distance
) -> None:
    edge = own_gateway.edge
    agent.wait_for("pool.filled", count=ROUTES + 1, warm=DEPTH, timeout_s=60)
    assert edge.open_tunnels == ROUTES * DEPTH
    with connect(agent.port("echo")) as elsewhere:
        assert say(elsewhere) == b"hello\n"
        edge.kill()
        lost = agent.wait_for("tunnels.lost")
        assert (lost["count"], lost["routes"]) == (ROUTES * DEPTH, ROUTES)
        assert say(elsewhere) == b"hello\n"
        agent.wait_for("breaker.opened")
        edge.start()
        for address in many:  # immediately, while the pools refill
            with connect(agent.port(address.replace(":", "-"))) as client:
                assert say(client) == b"hello\n"
        wait_until(lambda: edge.open_tunnels == ROUTES * DEPTH, 60, "all pools full again")
        assert say(elsewhere) == b"hello\n"
    assert len(agent.events("tunnels.lost")) == 1
    assert not agent.events("session.refused")
    assert not agent.events("route.demoted")
    assert 1 <= relay.counts().most_handshakes <= MAX_DIALS
    assert len(agent.events("tunnel.failed", level="warning")) <= ROUTES * 3, (
        "one line for each cause, not for each dial"
    )


def test_clients_of_a_firewalled_destination_slow_no_other_route(bastion: Bastion) -> None:
    address, sockets = black_hole()
    bastion.gateway.add_route(FIREWALLED, address.port)
    try:
        agent = bastion.start({FIREWALLED: ANY, "echo": ANY}, defaults={"warm": "off"})
        clients = [connect(agent.port(FIREWALLED.replace(":", "-"))) for _ in range(CLIENTS)]
        wait_until(lambda: len(bastion.gateway.authorizer.checks_for(FIREWALLED)) == MAX_DIALS_PER_ROUTE)
        for _ in range(CLIENTS):
            with connect(agent.port("echo")) as client:
                assert say(client) == b"hello\n"
        assert not agent.events("session.refused"), "all of that while the gateway still tries"
        assert len(bastion.gateway.authorizer.checks_for(FIREWALLED)) == MAX_DIALS_PER_ROUTE
        refused = agent.wait_for("session.refused", timeout_s=30)
        assert "the gateway cannot reach the route's server" in refused["error"]
        for client in clients:
            client.close()
    finally:
        bastion.gateway.remove_route(FIREWALLED)
        for sock in sockets:
            sock.close()
