"""Sessions through the real agent and the real gateway."""

import hashlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.gateway.destinations import pseudo_random, sha256_of
from tests.gateway.facade import Gateway
from tests.gateway.ports import LOOPBACK
from tests.support.agent.agent_process import AgentProcess, connect, read_to_end
from tests.support.agent.bastion import ANY, Bastion

MIB = 1024 * 1024
Start = Callable[..., tuple[AgentProcess, dict[str, int]]]


@pytest.fixture
def start(bastion: Bastion) -> Start:
    """Start an agent with routes to the given destinations, and return it and their ports."""

    def start_agent(*names: str, **tables: Any) -> tuple[AgentProcess, dict[str, int]]:
        agent = bastion.start(dict.fromkeys(names, ANY), **tables)
        return agent, {name: agent.port(name.replace(":", "-")) for name in names}

    return start_agent


def test_an_echo_comes_back_through_the_tunnel(start: Start) -> None:
    _, ports = start("echo")
    with connect(ports["echo"]) as client:
        client.sendall(b"hello\n")
        assert client.recv(100) == b"hello\n"


def test_every_session_is_one_log_line_with_the_gateways_request_id(start: Start, gateway: Gateway) -> None:
    agent, ports = start("echo")
    with connect(ports["echo"]) as client:
        client.sendall(b"hello\n")
        assert client.recv(100) == b"hello\n"
    closed = agent.wait_for("session.closed")
    assert (closed["side"], closed["reason"], closed["bytes_up"], closed["bytes_down"]) == ("client", "finished", 6, 6)
    assert closed["route"] == "echo"
    assert closed["request_id"]
    assert len(agent.events("session.closed")) == 1


@pytest.mark.parametrize("transport", ["http1", "http2"])
@pytest.mark.parametrize("warm", ["tunnel", "tls", "off"])
def test_64_mib_up_and_down_on_8_connections_at_a_time_arrive_unchanged(
    start: Start, warm: str, transport: str
) -> None:
    tables = {"defaults": {"warm": warm}, "gateways.demo": {"transport": transport}}
    _, ports = start("upload", "download", **tables)

    def exchange(seed: int) -> None:
        with connect(ports["upload"]) as up:
            up.sendall((8 * MIB).to_bytes(8, "big"))
            for block in pseudo_random(seed, 8 * MIB):
                up.sendall(block)
            assert up.makefile("rb").readline().decode().strip() == sha256_of(seed, 8 * MIB)
        with connect(ports["download"]) as down:
            down.sendall(f"{seed} {8 * MIB}\n".encode())
            assert hashlib.sha256(read_to_end(down)).hexdigest() == sha256_of(seed, 8 * MIB)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(exchange, range(8)))


def test_500_clients_that_close_at_once_are_all_served(start: Start) -> None:
    agent, ports = start("echo", defaults={"max_sessions": 64})
    for number in range(500):
        with connect(ports["echo"]) as client:
            client.sendall(b"%d\n" % number)
            assert client.recv(100) == b"%d\n" % number
    agent.wait_for("session.closed", count=500)
    assert not agent.events("session.refused")


def test_a_client_that_half_closes_after_its_request_gets_the_whole_answer(start: Start) -> None:
    agent, ports = start("answer")
    with connect(ports["answer"]) as client:
        client.sendall(b"1500 the whole answer\n")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"the whole answer\n"
    assert agent.wait_for("session.closed")["side"] == "gateway"


def test_bytes_sent_before_a_close_reach_the_destination(start: Start, gateway: Gateway) -> None:
    received = _Sink()
    address = gateway.add_route("sink.example.test:7100", received.port)
    _, ports = start(address, defaults={"warm": "off"})  # the server accepts one connection, which must be the client's
    body = b"".join(pseudo_random(7, 4 * MIB))
    with connect(ports[address]) as client:
        client.sendall(body)
    assert hashlib.sha256(received.everything()).hexdigest() == sha256_of(7, 4 * MIB)
    gateway.remove_route(address)


def test_the_banner_of_a_server_arrives_through_a_warm_tunnel(start: Start) -> None:
    agent, ports = start("banner", defaults={"warm": "tunnel"})
    agent.wait_for("pool.filled")
    with connect(ports["banner"]) as client:
        assert client.recv(100) == b"SSH-2.0-test\r\n"
        client.sendall(b"and now me\n")
        assert client.recv(100) == b"and now me\n"
    assert agent.wait_for("session.closed")["warm"] is True


def test_a_close_by_the_destination_is_a_clean_end_for_the_client(start: Start) -> None:
    _, ports = start("page")
    with connect(ports["page"]) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"It works" in read_to_end(client)


def test_a_gateway_crash_is_a_reset_for_the_client(start: Start, gateway: Gateway) -> None:
    agent, ports = start("echo")
    with connect(ports["echo"]) as client:
        client.sendall(b"hello\n")
        assert client.recv(100) == b"hello\n"
        gateway.edge.kill()
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    assert agent.wait_for("session.closed", side="gateway")["reason"] == "lost"


def test_a_client_without_a_tunnel_is_reset_and_the_cause_is_logged(start: Start) -> None:
    agent, ports = start("down", defaults={"warm": "off"})
    with pytest.raises(ConnectionResetError), connect(ports["down"]) as client:
        client.recv(100)
    refused = agent.wait_for("session.refused")
    assert "503" in refused["error"]
    assert refused["recovery"] == "retry"


def test_the_first_byte_needs_no_dial_on_a_warm_route(start: Start, gateway: Gateway) -> None:
    agent, ports = start("echo", defaults={"warm": "tunnel"})
    filled = agent.wait_for("tunnel.opened")
    with connect(ports["echo"]) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    closed = agent.wait_for("session.closed")
    assert closed["warm"] is True
    assert closed["request_id"] == filled["request_id"]


def test_sessions_beyond_the_limit_are_reset_and_the_limit_is_named(start: Start) -> None:
    agent, ports = start("echo", defaults={"max_sessions": 2})
    first, second = connect(ports["echo"]), connect(ports["echo"])
    with first, second:
        for client in (first, second):
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        with pytest.raises(ConnectionResetError), connect(ports["echo"]) as third:
            third.recv(1)
        assert agent.wait_for("session.refused")["reason"] == "limit"


class _Sink:
    """A server that accepts one connection and keeps the bytes it receives."""

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = self._listener.getsockname()[1]
        self._received: list[bytes] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def everything(self) -> bytes:
        self._thread.join(30)
        assert not self._thread.is_alive(), "the connection has not ended"
        return self._received[0]

    def _run(self) -> None:
        connection, _ = self._listener.accept()
        with connection, self._listener:
            self._received.append(read_to_end(connection))
