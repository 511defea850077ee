"""Which user the kernel reports for the other end of a connection."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pomagent.transport import peer_uid
from pomagent.transport.peer_uid import OVERFLOW_UID, user_of
from pomagent.transport.sock_diag import SockDiag
from tests.conftest import wait_until
from tests.support.agent import processes
from tests.support.agent.agent_process import clean_environment

PYTHON_FOR_ALL = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
ANYBODY = 4711
HOLD = """
import socket, sys
family, address = int(sys.argv[1]), eval(sys.argv[2])
held = socket.socket(family)
held.connect(address)
print("connected", flush=True)
sys.stdin.read()
"""
Server = Callable[[str], socket.socket]


@pytest.fixture
def diag() -> Iterator[SockDiag]:
    diag = SockDiag()
    yield diag
    diag.close()


@pytest.fixture(params=["127.0.0.1", "::1", "unix", "both"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, int, Any]]:
    """A listening socket, and how to connect to it."""
    if request.param == "unix":
        path = f"\0pomagent-test-{os.getpid()}"  # abstract, so no directory can be inaccessible to other users
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen()
        yield listening, socket.AF_UNIX, path
    elif request.param == "both":  # IPv4 to an IPv6 socket, which maps the addresses
        listening = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        yield listening, socket.AF_INET, ("127.0.0.1", listening.getsockname()[1])
    else:
        family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
        listening = socket.create_server((request.param, 0), family=family)
        yield listening, family, listening.getsockname()[:2]
    listening.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as another user")
def test_user_of_a_connection_is_known_while_a_process_holds_it(
    server: tuple[socket.socket, int, Any], diag: SockDiag
) -> None:
    listening, family, address = server
    client = processes.Process(
        [PYTHON_FOR_ALL, "-c", HOLD, str(int(family)), repr(address)], user=ANYBODY, group=ANYBODY, extra_groups=[],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment(), cwd="/",
    )  # fmt: skip
    accepted, _ = listening.accept()
    with client, accepted:
        assert client.stdout is not None
        assert client.stdout.readline() == b"connected\n"
        assert user_of(accepted, diag) == ANYBODY
        assert client.stdin is not None
        client.stdin.close()
        client.wait()
        if family != socket.AF_UNIX:  # the kernel remembers the user of a Unix socket
            wait_until(lambda: user_of(accepted, diag) is None)


def test_overflow_uid_counts_as_unknown(
    server: tuple[socket.socket, int, Any], diag: SockDiag, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening, family, address = server
    with socket.socket(family) as client:
        client.connect(address)
        accepted, _ = listening.accept()
        with accepted:
            assert user_of(accepted, diag) == os.getuid()
            monkeypatch.setattr(peer_uid, "OVERFLOW_UID", os.getuid())
            assert user_of(accepted, diag) == os.getuid(), "this is the first user namespace"
            monkeypatch.setattr(peer_uid, "_ALL_USERS", ["0", "1000", "1"])
            assert user_of(accepted, diag) is None
    assert OVERFLOW_UID == 65_534


def test_user_over_tcp_is_unknown_without_the_kernels_answer(server: tuple[socket.socket, int, Any]) -> None:
    listening, family, address = server
    with socket.socket(family) as client:
        client.connect(address)
        accepted, _ = listening.accept()
        with accepted:
            assert (user_of(accepted, None) is None) == (family != socket.AF_UNIX)
