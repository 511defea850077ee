"""The gateway stops and starts again: sessions, warm tunnels and certificates."""

import pytest

from tests.gateway.waiting import wait_until
from tests.support.agent.agent_process import connect
from tests.support.agent.bastion import ANY, Bastion, say


def test_sessions_are_reset_and_the_pool_refills_after_a_crash(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "tunnel", "pool_min": 2})
    agent.wait_for("pool.filled", warm=2)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        bastion.gateway.edge.kill()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    agent.wait_for("session.closed", side="gateway", reason="lost")
    filled = len(agent.events("pool.filled", warm=2))
    bastion.gateway.edge.start()
    agent.wait_for("pool.filled", count=filled + 1, warm=2)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        client.close()
    assert agent.wait_for("session.closed", count=2)["warm"] is True


def test_sessions_end_in_order_at_an_orderly_stop_and_the_next_one_is_served(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "off"})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        bastion.gateway.edge.stop()
        assert client.recv(1) == b""
    agent.wait_for("session.closed", side="gateway", reason="finished")
    bastion.gateway.edge.start()
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"


def test_clients_of_a_stopped_gateway_are_reset_with_the_reason(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "off"})
    bastion.gateway.edge.stop()
    with pytest.raises(ConnectionResetError), connect(agent.port("echo")) as client:
        client.recv(1)
    refused = agent.wait_for("session.refused")
    assert "connection refused; start the gateway, or mend the URL" in refused["error"]
    assert refused["recovery"] == "retry"


def test_warm_tunnels_that_died_with_the_gateway_are_never_leased(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "tunnel", "pool_min": 4})
    agent.wait_for("pool.filled", warm=4)
    bastion.gateway.edge.kill()
    bastion.gateway.edge.start()
    for _ in range(6):
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"


def test_warm_tls_connections_that_died_are_replaced_unnoticed(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "tls", "pool_min": 2})
    agent.wait_for("pool.filled", warm=2)
    bastion.gateway.edge.kill()
    bastion.gateway.edge.start()
    for _ in range(4):
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"


def test_replaced_certificate_keeps_sessions_and_applies_to_new_tunnels(own_gateway_bastion: Bastion) -> None:
    here = own_gateway_bastion
    agent = here.start({"echo": ANY}, defaults={"warm": "off"})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        here.gateway.edge.replace_listener(certificate=here.gateway.expired_certificate)
        assert say(client) == b"hello\n"
        with pytest.raises(ConnectionResetError), connect(agent.port("echo")) as other:
            other.recv(1)
        refused = agent.wait_for("session.refused")
        assert "certificate has expired" in refused["error"]
        assert refused["recovery"] == "operator"
        here.gateway.edge.replace_listener(certificate=here.gateway.authority.issue_server("renewed"))
        with connect(agent.port("echo")) as other:
            assert say(other) == b"hello\n"
        assert say(client) == b"hello\n"


def test_sessions_end_and_the_pool_refills_when_the_gateways_listener_drains(own_gateway_bastion: Bastion) -> None:
    agent = own_gateway_bastion.start({"echo": ANY}, defaults={"warm": "tunnel"})
    agent.wait_for("pool.filled", warm=1)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        filled = len(agent.events("pool.filled", warm=1))
        own_gateway_bastion.gateway.edge.stop()
        assert client.recv(1) == b""
        own_gateway_bastion.gateway.edge.start()
        wait_until(lambda: len(agent.events("pool.filled", warm=1)) > filled, 20)
