"""The relay that puts a distance in between: it may delay, and it may count. It changes nothing."""

import contextlib
import hashlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import wait_until
from tests.gateway.destinations import Destinations, pseudo_random, sha256_of
from tests.gateway.distance import Distance
from tests.gateway.facade import Gateway
from tests.gateway.ports import LOOPBACK, unused_port
from tests.support.agent.agent_process import connect, read_to_end

MIB = 1024 * 1024
ONE_WAY_MS = 10


@pytest.fixture(scope="module")
def destinations() -> Iterator[Destinations]:
    running = Destinations()
    running.start()
    yield running
    running.stop()


@contextlib.contextmanager
def far(destinations: Destinations, name: str, one_way_ms: float = ONE_WAY_MS) -> Iterator[socket.socket]:
    with Distance(destinations.address(name), one_way_ms) as distance, connect(distance.port) as client:
        yield client


def test_a_byte_takes_its_time_in_both_directions(destinations: Destinations) -> None:
    with far(destinations, "echo") as client:
        for _ in range(5):
            began = time.monotonic()
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            assert time.monotonic() - began >= 2 * ONE_WAY_MS / 1000


def test_many_bytes_are_under_way_at_once_and_arrive_unchanged(destinations: Destinations) -> None:
    with far(destinations, "echo") as client, ThreadPoolExecutor(1) as threads:
        sent = threads.submit(lambda: [client.sendall(block) for block in pseudo_random(5, 32 * MIB)])
        sent.add_done_callback(lambda _: client.shutdown(socket.SHUT_WR))
        digest = hashlib.sha256()
        while data := client.recv(MIB):
            digest.update(data)
    assert digest.hexdigest() == sha256_of(5, 32 * MIB)


def test_the_answer_after_a_half_close_arrives(destinations: Destinations) -> None:
    with far(destinations, "answer") as client:
        client.sendall(b"50 late\n")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"late\n"


def test_a_reset_is_passed_on(destinations: Destinations) -> None:
    with far(destinations, "reset") as client:
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            read_to_end(client)


def test_unused_port_behind_the_relay_is_a_reset() -> None:
    with Distance((LOOPBACK, unused_port()), 0) as distance:
        with pytest.raises(ConnectionResetError), connect(distance.port) as client:  # it may come as early as that
            read_to_end(client)


def test_handshakes_are_counted_while_they_are_under_way(gateway: Gateway) -> None:
    with Distance((LOOPBACK, gateway.port), 0) as distance, contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(distance.port))
        wait_until(lambda: distance.counts().handshakes == 3)
        stack.close()
        wait_until(lambda: distance.counts().handshakes == 0)
        assert (distance.counts().connections, distance.counts().most_handshakes) == (3, 3)
