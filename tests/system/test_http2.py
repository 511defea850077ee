"""``transport = "http2"`` through the real agent and the real edge."""

import hashlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.configuration import STAT_PREFIX
from tests.gateway.destinations import sha256_of
from tests.gateway.facade import Gateway
from tests.gateway.waiting import wait_until
from tests.support.agent import processes
from tests.support.agent.agent_process import AgentProcess, connect, read_to_end
from tests.support.agent.bastion import ANY, Bastion

MIB = 1024 * 1024
HTTP2 = {"gateways.demo": {"transport": "http2"}}
Start = Callable[..., tuple[AgentProcess, dict[str, int]]]


@pytest.fixture
def start(bastion: Bastion) -> Start:
    """Start an agent that uses HTTP/2 with routes to some destinations, and return the agent and the ports."""

    def start_agent(*names: str, **tables: Any) -> tuple[AgentProcess, dict[str, int]]:
        agent = bastion.start(dict.fromkeys(names, ANY), **{**HTTP2, **tables})
        return agent, {name: agent.port(name) for name in names}

    return start_agent


def test_server_that_waits_for_the_end_of_a_request_answers_nc(start: Start) -> None:
    _, ports = start("count")
    nc = processes.run(["nc.openbsd", "-N", "127.0.0.1", str(ports["count"])], input=b"request\n", capture_output=True)
    assert nc.stdout == b"8\n"


def test_http1_carries_no_end_of_a_request(bastion: Bastion) -> None:
    """HTTP/1.1 has no signal for the end of a request, which is the reason for HTTP/2."""
    agent = bastion.start({"count": ANY}, defaults={"half_close_timeout_s": 1})
    with connect(agent.port("count")) as client:
        client.sendall(b"request\n")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b""


@pytest.mark.parametrize("warm", ["tunnel", "tls", "off"])
def test_download_of_5_mb_is_complete_although_the_server_closes_and_the_client_stalls(start: Start, warm: str) -> None:
    _, ports = start("download", defaults={"warm": warm})
    with connect(ports["download"]) as client:
        client.sendall(b"7 5000000\n")
        time.sleep(3)  # longer than the second after which an edge drops unread data over HTTP/1.1
        assert hashlib.sha256(read_to_end(client)).hexdigest() == sha256_of(7, 5_000_000)


def test_last_bytes_of_a_closing_client_reach_the_destination(start: Start) -> None:
    _, ports = start("count")
    with connect(ports["count"]) as client:
        client.sendall(bytes(8 * MIB))
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == f"{8 * MIB}\n".encode()


def test_greeting_arrives_through_a_warm_tunnel(start: Start) -> None:
    agent, ports = start("banner", defaults={"warm": "tunnel"})
    agent.wait_for("pool.filled")
    with connect(ports["banner"]) as client:
        assert client.recv(100) == b"SSH-2.0-test\r\n"
        client.sendall(b"and now me\n")
        assert client.recv(100) == b"and now me\n"
    assert agent.wait_for("session.closed")["warm"] is True


def test_reset_of_the_destination_is_logged_with_its_cause(start: Start) -> None:
    agent, ports = start("reset")
    with connect(ports["reset"]) as client:
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    closed = agent.wait_for("session.closed")
    assert (closed["side"], closed["reason"]) == ("gateway", "aborted")
    assert closed["cause"] == "reset by the gateway: CONNECT_ERROR"


def test_client_is_reset_when_the_gateway_dies(start: Start, gateway: Gateway) -> None:
    agent, ports = start("echo")
    with connect(ports["echo"]) as client:
        client.sendall(b"hello\n")
        assert client.recv(100) == b"hello\n"
        gateway.edge.kill()
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    assert agent.wait_for("session.closed", side="gateway")["reason"] == "lost"


def test_refusal_has_the_same_sentence_as_over_http1(start: Start) -> None:
    agent, ports = start("down", defaults={"warm": "off"})
    with pytest.raises(ConnectionResetError), connect(ports["down"]) as client:
        client.recv(100)
    refused = agent.wait_for("session.refused")
    assert "503" in refused["error"]
    assert "the gateway cannot reach the route's server; start it" in refused["error"]


def test_probe_and_status_show_the_transport(start: Start, bastion: Bastion) -> None:
    agent, _ = start("echo", defaults={"warm": "tunnel"})
    agent.wait_for("pool.filled")
    assert "  http2  certificate until" in agent.command("probe").stdout
    status = agent.command("status").stdout
    assert "\ndemo: http2\n" in status


def test_warm_tls_connections_closed_by_the_edge_are_replaced_unnoticed(own_gateway: Gateway, tmp_path: Path) -> None:
    own_gateway.edge.replace_listener(idle_connection_timeout_s=0.5)
    with Bastion(own_gateway, tmp_path) as bastion:
        agent = bastion.start({"echo": ANY}, **HTTP2, defaults={"warm": "tls"})
        agent.wait_for("pool.filled")
        ended = f"http.{STAT_PREFIX}.downstream_cx_idle_timeout"
        wait_until(lambda: own_gateway.edge.stat(ended) >= 2, 20)
        with connect(agent.port("echo")) as client:
            client.sendall(b"hello\n")
            assert client.recv(100) == b"hello\n"
        assert not agent.events("session.refused")


def test_edge_without_h2_is_used_over_http1_and_logged_once(own_gateway: Gateway, tmp_path: Path) -> None:
    own_gateway.edge.replace_listener(alpn=("http/1.1",))
    with Bastion(own_gateway, tmp_path) as bastion:
        agent = bastion.start({"echo": ANY, "banner": ANY}, **HTTP2, defaults={"warm": "tunnel", "pool_min": 2})
        for _ in range(3):
            with connect(agent.port("echo")) as client:
                client.sendall(b"hello\n")
                assert client.recv(100) == b"hello\n"
        agent.wait_for("session.closed", count=3)
        (event,) = agent.events("transport.downgraded")
        assert (event["wanted"], event["used"], event["table"]) == ("http2", "http1", "demo")
        assert "\ndemo: http1, because the gateway does not offer h2" in agent.command("status").stdout


def test_reload_to_http2_applies_to_new_sessions_and_keeps_open_ones(bastion: Bastion, gateway: Gateway) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "off"})
    with connect(agent.port("echo")) as old:
        old.sendall(b"old")
        assert old.recv(3) == b"old"
        bastion.save({"echo": ANY}, **HTTP2, defaults={"warm": "off"})
        agent.wait_for("config.applied")
        with connect(agent.port("echo")) as new:
            new.sendall(b"new")
            assert new.recv(3) == b"new"
        old.sendall(b"still")
        assert old.recv(5) == b"still"
    closed = agent.wait_for("session.closed", count=2)
    assert closed
    protocols = {
        event["request_id"]: gateway.edge.wait_for_access(request_id=event["request_id"]).protocol
        for event in agent.events("session.closed")
    }
    assert sorted(protocols.values()) == ["HTTP/1.1", "HTTP/2"]
