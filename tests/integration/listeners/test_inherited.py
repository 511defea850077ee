"""Sockets that somebody else opened: found by address, named for systemd's store."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pomagent.listeners.inherited import MAX_NAME, OURS, Inherited, comparable, from_systemd, store_name
from pomagent.settings import HostPort, UnixAddress


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short one: a Unix socket's path has 107 bytes."""
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
def test_the_name_in_the_store_says_where_it_listens(key: tuple[str, str], name: str) -> None:
    assert store_name(key) == name


@pytest.mark.parametrize("length", [-1, 0, 1])
def test_a_name_that_systemd_would_not_take_is_shortened(length: int) -> None:
    path = "/" + "a" * (MAX_NAME + length - len("pomagent@unix,/"))
    name = store_name((f"unix:{path}", ""))
    assert len(name) <= MAX_NAME
    assert name.startswith(OURS)
    assert name.endswith("a" * 100) == (length <= 0)
    assert store_name((f"unix:{path}b", "")) != name


def test_an_ipv6_address_is_found_however_it_is_written() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as sock:
        port = sock.getsockname()[1]
        inherited = Inherited(sock, "x")
        assert inherited.address == f"[::1]:{port}"
        assert inherited.leads_to(HostPort("0:0:0:0:0:0:0:1", port))
        assert not inherited.leads_to(HostPort("127.0.0.1", port))
    assert comparable(HostPort("::ffff:7f00:1", 1)) == comparable(HostPort("::ffff:7f00:0001", 1))


def test_a_unix_socket_leads_nowhere_once_its_file_is_gone(directory: Path) -> None:
    address = UnixAddress(directory / "x.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(address.path))
        sock.listen()
        assert Inherited(sock, "x").leads_to(address)
        address.path.unlink()
        assert not Inherited(sock, "x").leads_to(address)
        address.path.write_text("no socket")
        assert not Inherited(sock, "x").leads_to(address)


def test_what_is_no_listening_stream_socket_has_no_address() -> None:
    with socket.socket() as unbound, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        assert [Inherited(sock, "x").address for sock in (unbound, datagrams)] == ["", ""]
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0pomagent-test-{os.getpid()}")
        abstract.listen()
        assert Inherited(abstract, "x").address == ""


def test_a_socket_is_ours_by_its_name_only() -> None:
    with socket.socket() as sock:
        assert not Inherited(sock, store_name(("127.0.0.1:1", ""))).is_units
        assert Inherited(sock, "pomagent.socket").is_units
        assert Inherited(sock, "").is_units


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
def test_what_was_not_meant_for_this_process_is_not_taken(environ: dict[str, str]) -> None:
    variables = {"HOME": "/", **environ}
    assert from_systemd(variables) == []
    assert variables == {"HOME": "/"}
