"""Sessions of a revoked token end within ``recheck_s``. Without the setting they continue."""

import socket
import time
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.gateway.waiting import scaled, wait_until
from tests.support.agent.agent_process import AgentProcess, connect
from tests.support.agent.bastion import ANY, Bastion, say

RECHECK_S = 1
ROUTES = {"echo": {"listen": ANY, "warm": "tunnel"}, "page": {"listen": ANY, "warm": "tls"}}


def start(bastion: Bastion, recheck_s: float = RECHECK_S) -> AgentProcess:
    token = bastion.gateway.new_token()
    bastion.replace_token(token)
    return bastion.start(ROUTES, **{"credentials.default": {"recheck_s": recheck_s}})


def token_of(bastion: Bastion) -> str:
    return bastion.token_file.read_text().strip()


def has_ended(client: socket.socket) -> bool:
    client.settimeout(scaled(0.05))
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def looks(bastion: Bastion) -> int:
    """Return how often the gateway was asked about a token."""
    return sum("/.pomerium/user" in line for line in bastion.gateway.identity.requests)


def state(agent: AgentProcess, name: str) -> str:
    (route,) = [route for route in agent.status()["routes"] if route["name"] == name]
    return str(route["state"])


def test_sessions_of_a_revoked_token_end_within_recheck_s(bastion: Bastion) -> None:
    agent = start(bastion)
    agent.wait_for("pool.filled", route="echo")
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(agent.port("echo"))) for _ in range(5)]
        for client in clients:
            assert say(client) == b"hello\n"
        wait_until(lambda: looks(bastion) > 1)
        bastion.gateway.authorizer.revoke(token_of(bastion))
        before = looks(bastion)
        revoked = agent.wait_for("credential.revoked")
        wait_until(lambda: all(map(has_ended, clients)))
        assert looks(bastion) <= before + 1  # the first possible check found it
    assert (revoked["sessions"], revoked["status"], revoked["credential"]) == (5, 401, "default")
    agent.wait_for("session.closed", count=5, side="agent", reason="revoked")
    agent.wait_for("tunnel.closed", reason="stale")  # the warm tunnel
    assert (state(agent, "echo"), state(agent, "page")) == ("unauthenticated", "unauthenticated")
    time.sleep(RECHECK_S * 2)
    assert len(agent.events("credential.revoked")) == 1
    assert token_of(bastion) not in agent.log


def test_fresh_token_ends_the_revoked_state(bastion: Bastion) -> None:
    agent = start(bastion)
    bastion.gateway.authorizer.revoke(token_of(bastion))
    agent.wait_for("credential.revoked")
    bastion.replace_token(bastion.gateway.new_token())
    agent.wait_for("config.applied")
    wait_until(lambda: state(agent, "echo") == "up")
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"


def test_sessions_continue_without_recheck_s(bastion: Bastion) -> None:
    agent = start(bastion, 0)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        bastion.gateway.authorizer.revoke(token_of(bastion))
        time.sleep(RECHECK_S * 2)
        assert say(client) == b"hello\n"
    assert not any("/.pomerium/user" in line for line in bastion.gateway.identity.requests)
    assert not agent.events("credential.revoked")


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_other_answers_end_no_session_and_are_logged_once(bastion: Bastion, status: int) -> None:
    agent = start(bastion)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        bastion.gateway.identity.refuse(status)
        agent.wait_for("credential.unchecked")
        asked = len(bastion.gateway.identity.requests)
        wait_until(lambda: len(bastion.gateway.identity.requests) >= asked + 2)
        assert say(client) == b"hello\n"
    assert len(agent.events("credential.unchecked")) == 1
    assert state(agent, "echo") == "up"


def test_redirect_to_the_sign_in_page_is_a_verdict_too(bastion: Bastion) -> None:
    agent = start(bastion)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        bastion.gateway.identity.refuse(302, location="https://authenticate.example.test/.pomerium/sign_in")
        agent.wait_for("session.closed", reason="revoked")
        wait_until(lambda: has_ended(client))


class Front(NamedTuple):
    """An answer of something in front of the gateway, which is no verdict."""

    status: int
    words: str
    headers: dict[str, str] = {}
    body: str = ""


FRONTS = {
    "a redirect to a maintenance page": Front(
        302, "redirects to https://down.example.com/page;", {"location": "https://down.example.com/page?t=1"}
    ),
    "a redirect to another name": Front(308, "redirects to https://new.example.com;",
                                        {"location": "https://new.example.com"}),
    "a redirect without a Location": Front(307, "redirects without a Location"),
    "a balancer's 401": Front(401, "demands a login of its own", {"www-authenticate": 'Basic realm="lb"'}, "who?"),
    "a firewall's 403": Front(403, "forbids the request", {"content-type": "text/html"}, "<h1>Blocked</h1>"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FRONTS)
def test_answer_of_something_in_front_is_an_outage_and_ends_nothing(bastion: Bastion, kind: str) -> None:
    front = FRONTS[kind]
    agent = start(bastion, 2)
    agent.wait_for("pool.filled", route="echo")
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        agent.wait_for("pool.filled", route="echo")
        bastion.gateway.authorizer.refuse(front.status, front.headers, front.body)
        bastion.gateway.identity.refuse(front.status, front.body or "-", front.headers.get("location", ""))
        unchecked = agent.wait_for("credential.unchecked")
        assert "something in front of the gateway" in unchecked["error"]
        connect(agent.port("echo")).close()  # takes the warm tunnel; its replacement is refused
        failed = agent.wait_for("tunnel.failed", status=front.status)
        assert failed["recovery"] == "retry"
        assert front.words in failed["error"]
        asked = looks(bastion)
        wait_until(lambda: looks(bastion) >= asked + 2)
        assert say(client) == b"hello\n"
        assert state(agent, "echo") in {"degraded", "down"}
        bastion.gateway.identity.reset()
        bastion.gateway.authorizer.behave()
        wait_until(lambda: state(agent, "echo") == "up")
        assert say(client) == b"hello\n"
    assert not agent.events("credential.revoked")
    assert not agent.events("session.closed", reason="revoked")


def test_session_is_checked_by_the_token_that_opened_it(bastion: Bastion) -> None:
    agent = start(bastion)
    old = token_of(bastion)
    with connect(agent.port("echo")) as before:
        assert say(before) == b"hello\n"
        bastion.replace_token(bastion.gateway.new_token())
        agent.wait_for("config.applied")
        with connect(agent.port("echo")) as after:
            assert say(after) == b"hello\n"
            bastion.gateway.authorizer.revoke(old)
            assert agent.wait_for("credential.revoked")["sessions"] == 1
            wait_until(lambda: has_ended(before))
            after.settimeout(scaled(20))
            assert say(after) == b"hello\n"
    assert state(agent, "echo") == "up"


def test_recheck_s_takes_effect_at_once_and_retires_no_tunnel(bastion: Bastion) -> None:
    agent = start(bastion, 0)
    agent.wait_for("pool.filled", route="echo")
    agent.wait_for("pool.filled", route="page")
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        bastion.save(ROUTES, **{"credentials.default": {"recheck_s": RECHECK_S}})
        applied = agent.wait_for("config.applied")
        assert (applied["live"], applied["new_sessions"]) == (1, 0)
        bastion.gateway.authorizer.revoke(token_of(bastion))
        assert not agent.events("tunnel.closed", reason="stale")
        agent.wait_for("session.closed", reason="revoked")
