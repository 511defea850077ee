"""Routes that fail for different reasons do not affect a route that works."""

from contextlib import ExitStack, suppress

from tests.gateway.agent_toml import write_token
from tests.gateway.waiting import wait_until
from tests.support.agent.agent_process import AgentProcess, connect
from tests.support.agent.bastion import ANY, Bastion, on, say

SESSIONS = 100
DEPTH = 4


def test_failing_route_gateway_or_credential_leaves_other_routes_alone(bastion: Bastion, unused_port: int) -> None:
    gateway = bastion.gateway
    revoked = gateway.new_token()
    gateway.authorizer.revoke(revoked)
    write_token(bastion.directory / "revoked", revoked)
    nowhere = {"url": gateway.url, "connect_to": on(unused_port), "ca_file": str(gateway.ca_file)}
    agent = bastion.start(
        {
            "echo": {"listen": ANY, "pool_min": DEPTH},
            "down": ANY,
            "noconnect": ANY,
            "page": {"listen": ANY, "credential": "revoked"},
            "answer": {"listen": ANY, "gateway": "nowhere"},
        },
        defaults={"warm": "tunnel"},
        **{"gateways.nowhere": nowhere, "credentials.revoked": {"service_account_file": "revoked"}},
    )
    failing = ("down", "noconnect", "page", "answer")
    for name in failing:
        agent.wait_for("breaker.opened", route=name)
    _ask_in_vain(agent, failing)
    for _ in range(SESSIONS):
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"
    agent.wait_for("session.closed", route="echo", count=SESSIONS)
    assert {event["reason"] for event in agent.events("session.closed", route="echo")} == {"finished"}
    assert not agent.events("session.refused", route="echo")
    assert not agent.events("breaker.opened", route="echo")
    wait_until(lambda: agent.status()["routes"][0]["pool"]["warm"]["tunnel"] >= DEPTH)
    states = {route["name"]: route["state"] for route in agent.status()["routes"]}
    assert states == {
        "echo": "up", "down": "down", "noconnect": "down", "page": "unauthenticated", "answer": "down",
    }  # fmt: skip


def _ask_in_vain(agent: AgentProcess, names: tuple[str, ...]) -> None:
    """Connect five clients to each route and wait until each route has refused one."""
    with ExitStack() as clients:
        for name in names:
            for _ in range(5):
                with suppress(ConnectionResetError):  # reset before connect() returned
                    clients.enter_context(connect(agent.port(name)))
            agent.wait_for("session.refused", route=name)
