"""Queries about single, real sockets of this kernel."""

import errno
import os
import socket

import pytest

from pomagent.transport import sock_diag
from pomagent.transport.sock_diag import Owner, SockDiag

ESTABLISHED, FIN_WAIT1, FIN_WAIT2 = 1, 4, 5
FIN_SENT = {FIN_WAIT1, FIN_WAIT2}  # acknowledged or not yet


@pytest.fixture
def diag():
    diag = SockDiag()
    yield diag
    diag.close()


def connect(server_host, client_host):
    """Return a connected pair: (client, accepted)."""
    family = socket.AF_INET6 if ":" in server_host else socket.AF_INET
    dual = server_host == "::"
    with socket.create_server((server_host, 0), family=family, dualstack_ipv6=dual) as server:
        port = server.getsockname()[1]
        client = socket.socket(socket.AF_INET6 if ":" in client_host else socket.AF_INET)
        client.connect((client_host, port))
        accepted, _ = server.accept()
    return client, accepted


HOSTS = [
    pytest.param("127.0.0.1", "127.0.0.1", id="ipv4"),
    pytest.param("127.0.0.1", "::ffff:127.0.0.1", id="ipv4 by an IPv6 socket"),
    pytest.param("::1", "::1", id="ipv6"),
    pytest.param("::", "127.0.0.1", id="mapped, from an IPv4 socket"),
    pytest.param("::", "::ffff:127.0.0.1", id="mapped, from an IPv6 socket"),
    pytest.param("::", "::1", id="dual-stack, ipv6"),
]


@pytest.mark.parametrize(("server_host", "client_host"), HOSTS)
def test_socket_of_the_client_is_found_from_the_accepted_one(diag, server_host, client_host):
    client, accepted = connect(server_host, client_host)
    with client, accepted:
        inode = os.fstat(client.fileno()).st_ino
        assert diag.find(accepted.getpeername(), accepted.getsockname()) == Owner(inode, os.getuid(), ESTABLISHED)


@pytest.mark.parametrize(("server_host", "client_host"), HOSTS)
def test_shut_down_socket_keeps_its_inode_and_a_closed_one_has_none(diag, server_host, client_host):
    client, accepted = connect(server_host, client_host)
    with accepted:
        inode = os.fstat(client.fileno()).st_ino
        client.shutdown(socket.SHUT_WR)
        accepted.recv(1)
        shut_down = diag.find(accepted.getpeername(), accepted.getsockname())
        client.close()
        closed = diag.find(accepted.getpeername(), accepted.getsockname())
    assert (shut_down.inode, shut_down.uid, shut_down.state in FIN_SENT) == (inode, os.getuid(), True)
    assert (closed.inode, closed.state in FIN_SENT) == (0, True)


def test_connection_that_does_not_exist_is_none(diag):
    client, accepted = connect("127.0.0.1", "127.0.0.1")
    with client, accepted:
        host, port = accepted.getpeername()
        assert diag.find((host, port), ("127.0.0.2", accepted.getsockname()[1])) is None
        assert diag.find(("127.0.0.2", port), accepted.getsockname()) is None


def test_listener_on_the_port_is_not_mistaken_for_the_connection(diag):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert diag.find(listener.getsockname(), ("127.0.0.1", 9)) is None


def test_connection_that_was_reset_is_none(diag):
    client, accepted = connect("127.0.0.1", "127.0.0.1")
    with accepted:
        own, peer = accepted.getsockname(), accepted.getpeername()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert diag.find(peer, own) is None


def test_uid_is_that_of_the_sockets_owner(diag):
    if os.getuid() != 0:
        pytest.skip("only root can give a socket to another user")
    client, accepted = connect("127.0.0.1", "127.0.0.1")
    with client, accepted:
        os.fchown(client.fileno(), 12345, -1)  # seteuid would change all threads of this process
        owner = diag.find(accepted.getpeername(), accepted.getsockname())
    assert owner.uid == 12345


def test_leftover_answer_is_not_mistaken_for_the_next_one(diag):
    client, accepted = connect("127.0.0.1", "127.0.0.1")
    with client, accepted:
        peer, own = accepted.getpeername(), accepted.getsockname()
        for _ in range(3):
            leftover = sock_diag._request(("127.0.0.9", 1), ("127.0.0.9", 2))
            header = sock_diag._HEADER.pack(sock_diag._HEADER.size + len(leftover), 20, 1, 9_999_999, 0)
            diag._socket.sendto(header + leftover, (0, 0))
        found = diag.find(peer, own)
        assert found is not None
        assert found.inode == os.fstat(client.fileno()).st_ino


def test_overrun_is_drained(diag):
    client, accepted = connect("127.0.0.1", "127.0.0.1")
    with client, accepted:
        question = sock_diag._request(("127.0.0.9", 1), ("127.0.0.9", 2))
        header = sock_diag._HEADER.pack(sock_diag._HEADER.size + len(question), 20, 1, 9_999_999, 0)
        diag._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        for _ in range(50):
            diag._socket.sendto(header + question, (0, 0))
        found = diag.find(accepted.getpeername(), accepted.getsockname())
        assert found is not None
        assert found.inode == os.fstat(client.fileno()).st_ino


def test_kernel_that_never_answers_raises_oserror(diag, monkeypatch):
    monkeypatch.setattr(diag, "_exchange", lambda question: None)
    with pytest.raises(OSError, match="lost"):
        diag.find(("127.0.0.1", 1), ("127.0.0.1", 2))


def test_failing_socket_raises_oserror(diag):
    class Failing:
        def sendto(self, data, address):
            return len(data)

        def recv(self, size):
            raise PermissionError

        def close(self):
            pass

    diag.close()
    diag._socket = Failing()
    with pytest.raises(PermissionError):
        diag.find(("127.0.0.1", 1), ("127.0.0.1", 2))


def test_error_other_than_absence_is_raised(diag, monkeypatch):
    monkeypatch.setattr(
        diag, "_exchange", lambda question: (sock_diag.NLMSG_ERROR, (-errno.EPERM).to_bytes(4, "little", signed=True))
    )
    with pytest.raises(PermissionError):
        diag.find(("127.0.0.1", 1), ("127.0.0.1", 2))


@pytest.mark.parametrize("answer", [None, (sock_diag.NLMSG_ERROR, (-errno.ENOENT).to_bytes(4, "little", signed=True))])
def test_kernel_without_tcp_diag_is_detected_at_once(monkeypatch, answer):
    monkeypatch.setattr(SockDiag, "_exchange", lambda self, request: answer)
    with pytest.raises(OSError, match="tcp_diag"):
        SockDiag()


def test_closed_sock_diag_raises_oserror_rather_than_an_answer(diag):
    diag.close()
    with pytest.raises(OSError):
        diag.find(("127.0.0.1", 1), ("127.0.0.1", 2))
