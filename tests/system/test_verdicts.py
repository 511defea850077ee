"""A verdict of the gateway counts once, stops what it forbids, and is over for every route when it is withdrawn."""

import time

from tests.gateway.facade import destination
from tests.gateway.waiting import scaled, wait_until
from tests.support.agent.agent_process import AgentProcess, connect
from tests.support.agent.bastion import ANY, Bastion, say

RECHECK_S = 2
WATCHED_S = 12
"""Seconds of a revocation in which log lines and CONNECTs are counted: six checks."""
MAX_CONNECTS = 8
"""Maximum CONNECTs of one route meanwhile: three fast tries at most before the verdict, then the waits after it."""
LEVELS = {
    "echo": {"listen": ANY, "warm": "tunnel", "pool_min": 2},
    "page": {"listen": ANY, "warm": "tls"},
    "idle": {"listen": ANY, "warm": "off"},
}
FAILING = {
    "down": {"listen": ANY, "warm": "tunnel"},
    "public": {"listen": ANY, "warm": "tunnel"},  # denied in the test
}


def states(agent: AgentProcess) -> dict[str, str]:
    return {route["name"]: route["state"] for route in agent.status()["routes"]}


def connects(bastion: Bastion, name: str) -> int:
    return len(bastion.gateway.authorizer.checks_for(destination(name)))


def start(bastion: Bastion, routes: dict[str, dict[str, object]], **defaults: object) -> tuple[AgentProcess, str]:
    token = bastion.gateway.new_token()
    bastion.replace_token(token)
    agent = bastion.start(
        routes,
        **{"credentials.default": {"recheck_s": RECHECK_S}, "defaults": defaults, "agent": {"log_level": "debug"}},
    )
    return agent, token


def test_revoked_token_counts_once_and_every_route_heals_when_it_is_readmitted(bastion: Bastion) -> None:
    bastion.gateway.authorizer.forbid_host(destination("public"))
    agent, token = start(bastion, {**LEVELS, **FAILING})
    agent.wait_for("pool.filled", route="echo", warm=2)
    wait_until(lambda: states(agent)["down"] == "down")
    with connect(agent.port("echo")) as session:
        assert say(session) == b"hello\n"
        bastion.gateway.authorizer.revoke(token)
        assert agent.wait_for("credential.revoked")["sessions"] == 1
    assert {states(agent)[name] for name in LEVELS} == {"unauthenticated"}
    closed = len(agent.events("breaker.closed"))
    bastion.gateway.authorizer.forget()
    time.sleep(WATCHED_S)
    assert len(agent.events("credential.revoked")) == 1
    assert len(agent.events("breaker.closed")) == closed
    assert connects(bastion, "page") == connects(bastion, "idle") == 0
    assert all(connects(bastion, name) <= MAX_CONNECTS for name in ("echo", *FAILING))
    bastion.gateway.authorizer.trust(token)
    agent.wait_for("credential.readmitted")
    wait_until(lambda: all(states(agent)[name] in ("up", "untried") for name in LEVELS))
    agent.wait_for("breaker.closed", route="idle")
    assert connects(bastion, "page") == connects(bastion, "idle") == 0
    with connect(agent.port("idle")) as client:
        client.settimeout(scaled(20))
        assert say(client) == b"hello\n"


def test_denied_route_closes_its_warm_tunnels_and_keeps_none(bastion: Bastion) -> None:
    agent, _ = start(bastion, {"echo": LEVELS["echo"]}, pool_max_age_s=3)
    agent.wait_for("pool.filled", route="echo", warm=2)
    bastion.gateway.authorizer.forbid_host(destination("echo"))
    wait_until(lambda: states(agent)["echo"] == "denied", scaled(20))  # found by a replacement, without a client
    (route,) = agent.status()["routes"]
    assert route["warm"] == 0
    bastion.gateway.authorizer.permit_host(destination("echo"))
    agent.command("retry", "echo")
    wait_until(lambda: states(agent)["echo"] == "up")
    assert not agent.events("credential.revoked")
