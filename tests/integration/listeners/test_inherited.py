"""Inherited sockets are found by address and named for systemd's store."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pomagent.listeners.inherited import MAX_NAME, OURS, Inherited, canonical, from_systemd, store_name
from pomagent.settings import HostPort, UnixAddress


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: a Unix socket's path is limited to 107 bytes."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (("127.0.0.1:5432", ""), "pomagent@127.0.0.1,5432"),
        (("[::1]:5432", ""), "pomagent@[,,1],5432"),
        (("127.0.0.1:0", "orders-db"), "pomagent@127.0.0.1,0@orders-db"),
        (("unix:/run/x/y.sock", ""), "pomagent@unix,/run/x/y.sock"),
        (("unix:/run/a,b@c\n\u00e4", ""), "pomagent@unix,/run/a%2Cb%40c%0A%C3%A4"),
    ],
)
def test_the_name_in_the_store_contains_the_address(key: tuple[str, str], name: str) -> None:
    assert store_name(key) == name


@pytest.mark.parametrize("length", [-1, 0, 1])
def test_a_name_too_long_for_systemd_is_shortened(length: int) -> None:
    path = "/" + "a" * (MAX_NAME + length - len("pomagent@unix,/"))
    name = store_name((f"unix:{path}", ""))
    assert len(name) <= MAX_NAME
    assert name.startswith(OURS)
    assert name.endswith("a" * 100) == (length <= 0)
    assert store_name((f"unix:{path}b", "")) != name


def test_an_ipv6_address_is_found_in_any_spelling() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as sock:
        port = sock.getsockname()[1]
        inherited = Inherited(sock, "x")
        assert inherited.address == f"[::1]:{port}"
        assert inherited.listens_on(HostPort("0:0:0:0:0:0:0:1", port))
        assert not inherited.listens_on(HostPort("127.0.0.1", port))
    assert canonical(HostPort("::ffff:7f00:1", 1)) == canonical(HostPort("::ffff:7f00:0001", 1))


def test_a_unix_socket_whose_file_is_gone_listens_on_no_address(directory: Path) -> None:
    address = UnixAddress(directory / "x.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(address.path))
        sock.listen()
        assert Inherited(sock, "x").listens_on(address)
        address.path.unlink()
        assert not Inherited(sock, "x").listens_on(address)
        address.path.write_text("no socket")
        assert not Inherited(sock, "x").listens_on(address)


def test_a_socket_that_is_no_listening_stream_socket_has_no_address() -> None:
    with socket.socket() as unbound, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        assert [Inherited(sock, "x").address for sock in (unbound, datagrams)] == ["", ""]
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0pomagent-test-{os.getpid()}")
        abstract.listen()
        assert Inherited(abstract, "x").address == ""


def test_the_name_alone_shows_that_a_socket_is_ours() -> None:
    with socket.socket() as sock:
        assert not Inherited(sock, store_name(("127.0.0.1:1", ""))).is_from_unit
        assert Inherited(sock, "pomagent.socket").is_from_unit
        assert Inherited(sock, "").is_from_unit


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid() + 1)},
        {"LISTEN_FDS": "one", "LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "-1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "x"},
        {"LISTEN_FDS": "0", "LISTEN_PID": str(os.getpid())},
    ],
)
def test_sockets_meant_for_another_process_are_ignored(environ: dict[str, str]) -> None:
    variables = {"HOME": "/", **environ}
    assert from_systemd(variables) == []
    assert variables == {"HOME": "/"}
