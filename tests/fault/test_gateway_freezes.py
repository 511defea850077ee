"""A gateway that keeps its connections and stops working (SIGSTOP), in each phase of a tunnel."""

import pytest

from tests.gateway.waiting import wait_until
from tests.support.agent.agent_process import connect
from tests.support.agent.bastion import ANY, Bastion, say

GATEWAY = {"connect_timeout_s": 1, "tls_timeout_s": 1, "response_timeout_s": 1}


def test_frozen_gateway_times_out_the_handshake(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "off"}, **{"gateways.demo": GATEWAY})
    bastion.gateway.edge.pause()
    with pytest.raises(ConnectionResetError), connect(agent.port("echo")) as client:
        client.recv(1)
    refused = agent.wait_for("session.refused")
    assert "no TLS handshake" in refused["error"]
    assert "within 1 s" in refused["error"]
    failed = agent.wait_for("tunnel.failed")
    assert (failed["phase"], failed["recovery"]) == ("tls", "retry")


def test_frozen_gateway_times_out_the_answer_on_a_warm_tls_connection(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "tls"}, **{"gateways.demo": GATEWAY})
    agent.wait_for("pool.filled", warm=1)
    bastion.gateway.edge.pause()
    with pytest.raises(ConnectionResetError), connect(agent.port("echo")) as client:
        client.recv(1)
    assert "no answer to the CONNECT within 1 s" in agent.wait_for("session.refused")["error"]


def test_session_on_a_warm_tunnel_continues_when_the_gateway_thaws(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "tunnel"}, **{"gateways.demo": GATEWAY})
    agent.wait_for("pool.filled", warm=1)
    bastion.gateway.edge.pause()
    with connect(agent.port("echo")) as client:
        client.sendall(b"hello\n")
        bastion.gateway.edge.resume()
        assert client.recv(6) == b"hello\n"


@pytest.mark.timeout(200)
def test_unanswered_ping_closes_warm_http2_tunnels(bastion: Bastion) -> None:
    http2 = GATEWAY | {"transport": "http2"}
    agent = bastion.start(
        {"echo": ANY}, agent={"log_level": "debug"}, defaults={"warm": "tunnel"}, **{"gateways.demo": http2}
    )
    agent.wait_for("pool.filled", warm=1)
    bastion.gateway.edge.pause()
    assert agent.wait_for("tunnel.closed", reason="peer_closed", timeout_s=90)["age_ms"] >= 15_000
    bastion.gateway.edge.resume()
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"


def test_freeze_during_a_session_stalls_it_and_loses_no_byte(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "tunnel"}, **{"gateways.demo": GATEWAY})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        bastion.gateway.edge.pause()
        client.sendall(b"still there?\n")
        client.settimeout(2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        bastion.gateway.edge.resume()
        client.settimeout(20)
        assert client.recv(100) == b"still there?\n"


def test_place_of_a_session_is_released_when_the_gateway_freezes_at_its_end(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "off", "max_sessions": 1})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        bastion.gateway.edge.pause()
    agent.wait_for("session.closed")
    bastion.gateway.edge.resume()
    wait_until(lambda: bastion.gateway.edge.open_tunnels == 0)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"


def test_pool_recovers_after_a_freeze(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "tunnel", "pool_max_age_s": 1}, **{"gateways.demo": GATEWAY})
    agent.wait_for("pool.filled", warm=1)
    bastion.gateway.edge.pause()
    agent.wait_for("tunnel.failed", phase="tls")
    bastion.gateway.edge.resume()
    filled = len(agent.events("pool.filled"))
    wait_until(lambda: len(agent.events("pool.filled")) > filled, 40)
