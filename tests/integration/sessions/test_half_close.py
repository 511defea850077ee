"""Every way in which a client can stop sending, over real sockets."""

import os
import socket
import subprocess
import sys
import time

import gevent.socket
import pytest

from pomagent.sessions.half_close import _is_local, peer_has_closed
from pomagent.transport.sock_diag import SockDiag
from tests.support.agent import processes

REPEATS = 300
RESET_ON_CLOSE = b"\1\0\0\0\0\0\0\0"


@pytest.fixture(scope="module")
def diag():
    diag = SockDiag()
    yield diag
    diag.close()


class Server:
    def __init__(self, kind, tmp_path):
        self.kind = kind
        if kind == "unix":
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(f"{tmp_path}/s")
            self.listener.listen()
        elif kind == "mapped":
            self.listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            host = {"ipv4": "127.0.0.1", "ipv6": "::1"}[kind]
            self.listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)

    @property
    def address(self):
        if self.kind == "unix":
            return self.listener.getsockname()
        return {"ipv4": "127.0.0.1", "mapped": "127.0.0.1", "ipv6": "::1"}[self.kind], self.listener.getsockname()[1]

    def pair(self):
        client = socket.socket({"unix": socket.AF_UNIX, "ipv6": socket.AF_INET6}.get(self.kind, socket.AF_INET))
        client.connect(self.address)
        return client, self.listener.accept()[0]


@pytest.fixture(params=["ipv4", "ipv6", "mapped", "unix"])
def server(request, tmp_path):
    server = Server(request.param, tmp_path)
    yield server
    server.listener.close()


def read_to_the_end(sock):
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass


def closed_in_the_end(sock, diag):
    """Check repeatedly, as a relay does while it lingers."""
    while not peer_has_closed(sock, diag):
        time.sleep(0.0001)
    return True


def test_close_is_always_detected(server, diag):
    for _ in range(REPEATS):
        client, accepted = server.pair()
        with accepted:
            client.send(b"last")
            client.close()
            read_to_the_end(accepted)
            assert closed_in_the_end(accepted, diag)


def test_half_close_is_always_detected_however_often_it_is_checked(server, diag):
    for _ in range(REPEATS):
        client, accepted = server.pair()
        with accepted, client:
            client.send(b"last")
            client.shutdown(socket.SHUT_WR)
            read_to_the_end(accepted)
            assert [peer_has_closed(accepted, diag) for _ in range(3)] == [False, False, False]
            accepted.send(b"answer")
            assert client.recv(100) == b"answer"


def test_half_close_that_becomes_a_close_is_detected(server, diag):
    for _ in range(REPEATS):
        client, accepted = server.pair()
        with accepted:
            client.shutdown(socket.SHUT_WR)
            read_to_the_end(accepted)
            assert peer_has_closed(accepted, diag) is False
            client.close()
            assert closed_in_the_end(accepted, diag)


def test_reset_counts_as_a_close(server, diag):
    for _ in range(REPEATS):
        client, accepted = server.pair()
        with accepted:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            client.close()
            read_to_the_end(accepted)
            assert closed_in_the_end(accepted, diag)


def test_close_with_unread_data_counts_as_a_close(server, diag):
    for _ in range(REPEATS):
        client, accepted = server.pair()
        with accepted:
            accepted.send(b"never read")
            client.close()
            read_to_the_end(accepted)
            assert closed_in_the_end(accepted, diag)


CLIENT = """
import socket, sys
address = (sys.argv[2], int(sys.argv[3])) if sys.argv[3] != "-" else sys.argv[2]
for _ in range(20):
    sock = socket.socket(int(sys.argv[1]))
    sock.connect(address)
    sys.stdin.readline()
    if sys.argv[4] == "shutdown":
        sock.shutdown(socket.SHUT_WR)
        sys.stdin.readline()
    sock.detach()
"""


@pytest.mark.parametrize("way", ["exit", "shutdown"])
def test_process_that_exits_has_closed(server, diag, way):
    family, address = server.listener.family, server.address
    if server.kind == "mapped":
        family = socket.AF_INET
    where = [address, "-"] if server.kind == "unix" else [address[0], str(address[1])]
    with processes.Process(
        [sys.executable, "-c", CLIENT, str(int(family)), *where, way], stdin=subprocess.PIPE
    ) as child:
        held = []
        for _ in range(20):
            accepted = server.listener.accept()[0]
            held.append(accepted)
            child.stdin.write(b"\n")
            child.stdin.flush()
            if way == "shutdown":
                read_to_the_end(accepted)
                assert peer_has_closed(accepted, diag) is False
                child.stdin.write(b"\n")
                child.stdin.flush()
        child.wait()
    for accepted in held:
        with accepted:
            read_to_the_end(accepted)
            assert closed_in_the_end(accepted, diag)


def test_socket_that_another_process_still_holds_is_not_closed(diag, server):
    client, accepted = server.pair()
    with accepted, socket.socket(fileno=os.dup(client.fileno())) as other:
        client.shutdown(socket.SHUT_WR)
        client.close()
        read_to_the_end(accepted)
        assert peer_has_closed(accepted, diag) is False
        other.close()
        assert closed_in_the_end(accepted, diag)


def test_answer_is_unknown_without_netlink(tmp_path):
    server = Server("ipv4", tmp_path)
    client, accepted = server.pair()
    with server.listener, client, accepted:
        assert peer_has_closed(accepted, None) is None


def test_answer_is_unknown_if_the_kernel_fails_to_answer(tmp_path):
    class Broken:
        def find(self, local, remote):
            raise OSError("netlink is gone")

    server = Server("ipv4", tmp_path)
    client, accepted = server.pair()
    with server.listener, client, accepted:
        assert peer_has_closed(accepted, Broken()) is None


def test_client_with_an_unfindable_socket_does_not_count_as_closed(tmp_path):
    class Redirected:
        """A client that came through a redirecting firewall rule, or from another network namespace."""

        def find(self, local, remote):
            return None

    server = Server("ipv4", tmp_path)
    client, accepted = server.pair()
    with server.listener, client, accepted:
        assert peer_has_closed(accepted, Redirected()) is None


@pytest.mark.parametrize(
    ("peer", "own", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.9", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("::ffff:10.1.2.3", "::ffff:10.1.2.3", True),
        ("fe80::1%eth0", "fe80::1%eth0", True),
        ("10.1.2.4", "10.1.2.3", False),
        ("::ffff:10.1.2.4", "::ffff:10.1.2.3", False),
        ("fe80::2%eth0", "fe80::1%eth0", False),
    ],
)
def test_peer_is_local_on_loopback_or_with_our_own_address(peer, own, expected):
    assert _is_local(peer, own) is expected


def test_gevent_sockets_are_supported(diag, tmp_path):
    server = Server("ipv4", tmp_path)
    client, accepted = server.pair()
    with server.listener, client, gevent.socket.socket(fileno=accepted.detach()) as relayed:
        client.shutdown(socket.SHUT_WR)
        assert relayed.recv(1) == b""
        assert peer_has_closed(relayed, diag) is False
