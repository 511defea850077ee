"""When a tunnel is opened: before a client connects, at its connection, or after a back-off."""

import pytest

from pomagent.pool.shared_reserve import MIN_KEPT
from tests.conftest import wait_until
from tests.gateway.configuration import Route
from tests.gateway.facade import destination
from tests.support.agent.agent_process import connect
from tests.support.agent.bastion import ANY, Bastion, say

ECHO = destination("echo")
MANY = 200
FEW = 8
"""Maximum dials of a pool that backs off while another route serves ``MANY`` sessions."""


def test_whole_tunnel_is_opened_before_a_client_connects(bastion: Bastion) -> None:
    authorizer = bastion.gateway.authorizer
    agent = bastion.start({"echo": {"listen": ANY, "warm": "tunnel"}})
    agent.wait_for("pool.filled")
    (check,) = authorizer.checks_for(ECHO)
    assert bastion.gateway.edge.open_tunnels == 1
    assert not agent.events("session.opened")
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    assert agent.wait_for("session.closed")["request_id"] == check.request_id
    assert bastion.gateway.edge.wait_for_access(host=ECHO, request_id=check.request_id).status == 200


def test_warm_tls_connection_gets_its_connect_when_a_client_connects(bastion: Bastion) -> None:
    authorizer, edge = bastion.gateway.authorizer, bastion.gateway.edge
    agent = bastion.start({"echo": {"listen": ANY, "warm": "tls"}})
    agent.wait_for("pool.filled")
    assert edge.open_connections == 1
    assert not authorizer.checks_for(ECHO)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        assert len(authorizer.checks_for(ECHO)) == 1
    assert agent.wait_for("session.closed")["warm"] is True


def test_nothing_is_dialled_before_a_client_connects_with_warm_off(bastion: Bastion) -> None:
    authorizer, edge = bastion.gateway.authorizer, bastion.gateway.edge
    agent = bastion.start({"echo": {"listen": ANY, "warm": "off"}, "banner": {"listen": ANY, "warm": "tunnel"}})
    agent.wait_for("pool.filled", route="banner")
    assert edge.open_connections == 1
    assert not authorizer.checks_for(ECHO)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    assert agent.wait_for("session.closed", route="echo")["warm"] is False
    assert not agent.events("pool.filled", route="echo")


def test_leased_tunnel_is_replaced_before_the_next_client(bastion: Bastion) -> None:
    agent = bastion.start({"echo": {"listen": ANY, "warm": "tunnel"}})
    for count in range(1, 6):
        agent.wait_for("pool.filled", count=count)
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"
    agent.wait_for("session.closed", count=5)
    assert all(event["warm"] for event in agent.events("session.closed"))


def test_forbidden_route_backs_off_while_others_serve(bastion: Bastion) -> None:
    authorizer = bastion.gateway.authorizer
    forbidden = destination("banner")
    authorizer.forbid_host(forbidden)
    try:
        agent = bastion.start({"echo": ANY, "banner": ANY}, defaults={"warm": "tunnel"})
        refused = agent.wait_for("tunnel.failed", route="banner")
        assert (refused["status"], refused["recovery"]) == (403, "operator")
        _serve_many(agent.port("echo"))
        assert 1 <= len(authorizer.checks_for(forbidden)) <= FEW
    finally:
        authorizer.permit_host(forbidden)


def test_clients_are_refused_by_the_gateways_answer_and_not_by_a_back_off(bastion: Bastion) -> None:
    authorizer = bastion.gateway.authorizer
    authorizer.forbid_host(ECHO)
    try:
        agent = bastion.start({"echo": ANY}, defaults={"warm": "tunnel"})
        agent.wait_for("tunnel.failed")
        with pytest.raises(ConnectionResetError), connect(agent.port("echo")) as client:
            client.recv(1)
        assert "403" in agent.wait_for("session.refused")["error"]
    finally:
        authorizer.permit_host(ECHO)
    with connect(agent.port("echo")) as client:  # at once, during the pool's back-off
        assert say(client) == b"hello\n"


def test_refused_token_backs_off_and_its_replacement_fills_the_pool(bastion: Bastion) -> None:
    authorizer = bastion.gateway.authorizer
    stale = bastion.gateway.new_token()
    authorizer.revoke(stale)
    bastion.replace_token(stale)
    agent = bastion.start({"echo": {"listen": ANY, "warm": "tunnel"}, "public": {"listen": ANY, "warm": "off"}})
    refused = agent.wait_for("tunnel.failed", route="echo")
    assert (refused["status"], refused["recovery"]) == (401, "reauthenticate")
    _serve_many(agent.port("public"))
    assert 1 <= len(authorizer.checks_for(ECHO)) <= FEW
    bastion.replace_token(bastion.gateway.token)
    agent.wait_for("pool.filled", route="echo")
    assert authorizer.checks_for(ECHO)[-1].token == bastion.gateway.token
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    assert agent.wait_for("session.closed", route="echo")["warm"] is True


def test_revoked_token_is_read_again_for_the_client_that_is_refused(bastion: Bastion) -> None:
    authorizer = bastion.gateway.authorizer
    first = bastion.gateway.new_token()
    bastion.replace_token(first)
    agent = bastion.start({"echo": {"listen": ANY, "warm": "off"}})
    authorizer.revoke(first)
    bastion.replace_token(bastion.gateway.token)
    with connect(agent.port("echo")) as client:  # with or without the reload that the edit causes
        assert say(client) == b"hello\n"
    assert authorizer.checks_for(ECHO)[-1].token == bastion.gateway.token


def test_pools_refill_when_the_gateway_returns(bastion: Bastion) -> None:
    edge = bastion.gateway.edge
    agent = bastion.start({"echo": {"listen": ANY, "warm": "tunnel"}})
    agent.wait_for("pool.filled")
    edge.stop()
    agent.wait_for("tunnel.failed", phase="tcp")
    before = len(agent.events("pool.filled"))
    edge.start()
    agent.wait_for("pool.filled", count=before + 1, timeout_s=60)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    wait_until(lambda: agent.events("session.closed", warm=True))


def _serve_many(port: int) -> None:
    for _ in range(MANY):
        with connect(port) as client:
            assert say(client) == b"hello\n"


BANNER = destination("banner")


def test_greeting_server_gets_one_probe_and_tls_connections_from_then_on(bastion: Bastion) -> None:
    destinations = bastion.gateway.destinations
    before = destinations.accepted("banner")
    agent = bastion.start({"banner": ANY})
    classified = agent.wait_for("route.classified", route="banner")
    assert (classified["protocol"], classified["warm"], classified["why"]) == ("ssh", "tls", "greeting")
    agent.wait_for("pool.filled")
    wait_until(lambda: destinations.open("banner") == 0, 10, "the look is over")
    bastion.replace_token(bastion.gateway.new_token())  # a new token means new connections, not another probe
    agent.wait_for("config.applied", new_sessions=1)
    agent.wait_for("pool.filled", count=2)
    assert destinations.accepted("banner") == before + 1
    with connect(agent.port("banner")) as client:
        assert client.recv(4) == b"SSH-"
    assert len(agent.events("route.classified")) == 1


def test_silent_server_keeps_whole_tunnels(bastion: Bastion) -> None:
    agent = bastion.start({"echo": {"listen": ANY, "pool_min": 3}})
    agent.wait_for("pool.filled")
    assert bastion.gateway.edge.open_tunnels == 1
    classified = agent.wait_for("route.classified")
    assert (classified["protocol"], classified["warm"], classified["why"]) == ("generic", "tunnel", "silence")
    wait_until(lambda: bastion.gateway.edge.open_tunnels == 3)


def test_greeting_seen_in_a_session_is_remembered(bastion: Bastion) -> None:
    agent = bastion.start({"banner": ANY}, defaults={"warm": "off"})
    with connect(agent.port("banner")) as client:
        assert client.recv(4) == b"SSH-"
        assert agent.wait_for("route.classified")["protocol"] == "ssh"
    assert agent.status()["routes"][0]["protocol"] == "ssh"


def test_server_that_closes_idle_tunnels_gets_no_more_of_them(bastion: Bastion) -> None:
    destinations = bastion.gateway.destinations
    before = destinations.accepted("hangup")
    agent = bastion.start({"hangup": ANY, "echo": ANY}, defaults={"warm": "tunnel", "pool_min": 2})
    demoted = agent.wait_for("route.demoted", route="hangup", timeout_s=40)
    assert (demoted["level"], demoted["warm"]) == ("warning", "tls")
    seen = destinations.accepted("hangup")
    assert seen - before <= 10
    wait_until(lambda: agent.status()["routes"][0]["pool"]["warm"] == {"tunnel": 0, "tls": 2}, 20)
    assert destinations.accepted("hangup") == seen
    assert not agent.events("route.demoted", route="echo")
    assert "demoted" in agent.command("status").stdout


def test_unused_routes_share_tls_connections_until_they_are_used(bastion: Bastion) -> None:
    edge, destinations = bastion.gateway.edge, bastion.gateway.destinations
    names = ["echo", *(f"echo-{number}" for number in range(9))]
    edge.set_routes({destination(name): Route(destinations.address("echo")) for name in names})
    agent = bastion.start(dict.fromkeys(names, ANY), defaults={"warm": "tunnel", "pool_min": 2, "pool_decay_s": 4})
    wait_until(lambda: edge.open_tunnels == 20)
    wait_until(lambda: (edge.open_tunnels, edge.open_connections) == (0, MIN_KEPT))
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    assert agent.wait_for("session.closed")["warm"] is True
    wait_until(lambda: (edge.open_tunnels, edge.open_connections) == (0, MIN_KEPT))
    document = agent.status()
    assert document["gateways"][0]["reserve"] == MIN_KEPT
    assert document["routes"][0]["pool"]["takes"] == {"tls": 1}


def test_status_shows_what_is_kept_warm_and_why(bastion: Bastion) -> None:
    agent = bastion.start({"echo": {"listen": ANY, "warm": "tunnel", "pool_min": 2}, "down": ANY})
    agent.wait_for("pool.filled", route="echo", warm=2)
    agent.wait_for("breaker.opened", route="down")
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    agent.wait_for("session.closed")
    document = agent.status()
    echo, down = (route["pool"] for route in document["routes"])
    assert (echo["level"], echo["why"], echo["takes"]) == ("tunnel", "configured", {"tunnel": 1})
    assert (echo["breaker"], echo["period"]) == ({"state": "closed", "failures": 0, "retry_in_s": 0.0}, None)
    assert (down["level"], down["why"], down["warm"]) == ("tunnel", "probing", {"tunnel": 0, "tls": 0})
    assert down["failures"]["destination_down"] == down["breaker"]["failures"] >= 4
    assert down["breaker"]["state"] in ("open", "half_open")
    (gateway,) = document["gateways"]
    assert (gateway["name"], gateway["max_dials"], gateway["tunnels_lost"], gateway["addresses_avoided"]) == (
        "demo", 8, 0, [],
    )  # fmt: skip
    assert gateway["certificate_expires"] > document["started_at"]
