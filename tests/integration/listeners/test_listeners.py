"""Listeners are prepared, committed, rolled back and handed over without refusing a client."""

import errno
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from pomagent.errors import BindError
from pomagent.listeners.bind import bind
from pomagent.listeners.fd_store import FdStore
from pomagent.listeners.listener import Listener
from pomagent.listeners.listeners import Listeners, Prepared
from pomagent.listeners.port_owner import owner_of
from pomagent.log.logger import LogLevel, LogWriter, make_logger
from pomagent.runtime.sd_notify import Notifier
from pomagent.sessions.client import LocalClient
from pomagent.settings import Gateway, HostPort, ListenAddress, Route, UnixAddress
from pomagent.transport import tcp
from tests.fakes.greenlets import caught_crashes
from tests.fakes.log import FakeLog
from tests.gateway.ports import LOOPBACK, unused_port
from tests.gateway.waiting import wait_until
from tests.integration.gateway.test_dialer import options


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    sink = os.open(os.devnull, os.O_WRONLY)
    writer = LogWriter(sink)
    log = make_logger(writer, format="json", level=LogLevel())
    made = Listeners(FdStore(Notifier({}), (), log), log)
    yield made
    made.stop()
    writer.close()
    os.close(sink)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: a Unix socket's path is limited to 107 bytes."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def route(listen: ListenAddress, name: str = "redis") -> Route:
    edge = HostPort("edge.example.com", 443)
    return Route(name, listen, HostPort("redis.example.com", 6379), Gateway("edge", edge))


def change(listeners: Listeners, *routes: Route) -> Prepared:
    """Apply routes as a reload does. Every connection is accepted and closed."""
    prepared = listeners.prepare(routes, all_routes=routes)
    assert not prepared.failures, prepared.failures
    listeners.commit(prepared)
    for each in routes:
        found = listeners.of(each)
        assert found is not None
        found.deliver_to(each.name, lambda sock, _peer: sock.close())
    listeners.close_unused(routes)
    return prepared


def connects(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as client:
        return client.connect_ex((host, port)) == 0


def test_an_address_that_stays_keeps_its_socket(listeners: Listeners) -> None:
    kept = route(HostPort(LOOPBACK, unused_port()))
    change(listeners, kept)
    listener = listeners.of(kept)
    assert listener is not None
    inode = listener.inode
    change(listeners, kept, route(HostPort(LOOPBACK, unused_port()), "other"))
    assert listeners.of(kept) is listener
    assert listener.inode == inode


@pytest.mark.parametrize(("old", "new"), [("0.0.0.0", LOOPBACK), (LOOPBACK, "0.0.0.0"), ("::", "::1"), ("::1", "::")])
def test_an_overlapping_address_takes_over_without_a_gap(listeners: Listeners, old: str, new: str) -> None:
    port = unused_port()
    before, after = route(HostPort(old, port)), route(HostPort(new, port))
    change(listeners, before)
    prepared = listeners.prepare([after], all_routes=[after])
    assert not prepared.failures
    host = LOOPBACK if "." in old else "::1"
    assert connects(host, port)  # both sockets listen now
    listeners.rollback(prepared)
    assert connects(host, port)
    change(listeners, after)
    assert connects(host, port)


def test_an_address_that_overlaps_with_a_kept_route_fails(listeners: Listeners) -> None:
    port = unused_port()
    stays, new = route(HostPort("0.0.0.0", port)), route(HostPort(LOOPBACK, port), "other")
    change(listeners, stays)
    assert list(listeners.prepare([stays, new], all_routes=[stays, new]).failures) == ["other"]


def test_after_an_overlap_a_second_agent_cannot_listen_there(listeners: Listeners) -> None:
    port = unused_port()
    change(listeners, route(HostPort("0.0.0.0", port)))
    change(listeners, route(HostPort(LOOPBACK, port)))
    with pytest.raises(BindError, match="in use"):
        bind(HostPort(LOOPBACK, port))


def test_a_listener_moves_between_tcp_and_a_unix_socket(listeners: Listeners, directory: Path) -> None:
    tcp, unix = HostPort(LOOPBACK, unused_port()), UnixAddress(directory / "redis.sock")
    change(listeners, route(tcp))
    change(listeners, route(unix))
    assert not connects(LOOPBACK, tcp.port)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(unix.path))
    change(listeners, route(tcp))
    assert connects(LOOPBACK, tcp.port)
    assert not unix.path.exists()


def test_a_unix_socket_gets_new_permissions_without_a_new_socket(listeners: Listeners, directory: Path) -> None:
    old, new = UnixAddress(directory / "x.sock", 0o600), UnixAddress(directory / "x.sock", 0o666)
    change(listeners, route(old))
    inode = listeners.of(route(old)).inode  # type: ignore[union-attr]
    change(listeners, route(new))
    assert listeners.of(route(new)).inode == inode  # type: ignore[union-attr]
    assert stat.S_IMODE(old.path.stat().st_mode) == 0o666


def test_a_rollback_restores_permissions(listeners: Listeners, directory: Path) -> None:
    old, new = UnixAddress(directory / "x.sock", 0o600), UnixAddress(directory / "x.sock", 0o666)
    change(listeners, route(old))
    listeners.rollback(listeners.prepare([route(new)], all_routes=[route(new)]))
    assert stat.S_IMODE(old.path.stat().st_mode) == 0o600


def test_a_rollback_keeps_old_listeners_and_frees_new_addresses(listeners: Listeners) -> None:
    kept = route(HostPort(LOOPBACK, unused_port()), "kept")
    new = route(HostPort(LOOPBACK, unused_port()), "new")
    change(listeners, kept)
    with socket.create_server((LOOPBACK, 0)) as taken:
        bad = route(HostPort(LOOPBACK, taken.getsockname()[1]), "bad")
        prepared = listeners.prepare([kept, new, bad], all_routes=[kept, new, bad])
        assert list(prepared.failures) == ["bad"]
        listeners.rollback(prepared)
    assert connects(LOOPBACK, kept.listen.port)  # type: ignore[union-attr]
    assert not connects(LOOPBACK, new.listen.port)  # type: ignore[union-attr]


def test_clients_that_connected_before_the_close_are_served(listeners: Listeners) -> None:
    address = HostPort(LOOPBACK, unused_port())
    served: list[str] = []
    prepared = listeners.prepare([route(address)], all_routes=[route(address)])
    listeners.commit(prepared)
    listener = listeners.of(route(address))
    assert isinstance(listener, Listener)
    listener.deliver_to("redis", lambda sock, peer: (served.append(peer), sock.close()))
    gevent.sleep(0)  # the listener waits for connections now
    clients = [socket.create_connection((LOOPBACK, address.port)) for _ in range(5)]
    listeners.close_unused([])  # before the loop has seen a single one
    assert len(served) == 5
    for client in clients:
        client.close()


def accepted_by(listening: socket.socket) -> socket.socket:
    listening.setblocking(True)
    with socket.create_connection(listening.getsockname()):
        return listening.accept()[0]


def test_an_accepted_socket_inherits_all_options() -> None:
    listener = Listener(HostPort(LOOPBACK, 0), FakeLog().log)
    with accepted_by(listener.sock) as accepted, socket.socket() as prepared:
        tcp.prepare(prepared)
        assert tcp.is_prepared(accepted)
        assert options(accepted) == options(prepared)
    listener.close()


def test_a_connection_older_than_the_listener_gets_its_options() -> None:
    with socket.create_server((LOOPBACK, 0)) as before, accepted_by(before) as accepted, socket.socket() as prepared:
        assert not tcp.is_prepared(accepted)
        client = LocalClient(accepted, None)
        tcp.prepare(prepared)
        assert options(accepted) == options(prepared)
        client.close()


def test_a_connection_with_options_of_a_socket_unit_gets_ours() -> None:
    with socket.create_server((LOOPBACK, 0)) as before, socket.socket() as prepared:
        before.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # KeepAlive= of a unit
        with accepted_by(before) as accepted:
            client = LocalClient(accepted, None)
            tcp.prepare(prepared)
            assert options(accepted) == options(prepared)
            client.close()


@pytest.mark.parametrize(("host", "name"), [("127.0.0.1", "127.0.0.1:"), ("::1", "[::1]:")])
def test_a_peer_is_named_by_its_address(host: str, name: str) -> None:
    peers: list[str] = []
    listener = Listener(HostPort(host, 0), FakeLog().log)
    listener.deliver_to("", lambda sock, peer: (sock.close(), peers.append(peer)))  # type: ignore[func-returns-value]
    with socket.create_connection(listener.sock.getsockname()[:2]) as client:
        wait_until(lambda: peers)
        assert peers == [f"{name}{client.getsockname()[1]}"]
    listener.close()


def test_a_replaced_socket_file_is_kept(listeners: Listeners, directory: Path) -> None:
    path = directory / "x.sock"
    change(listeners, route(UnixAddress(path)))
    path.unlink()
    path.write_text("not ours")
    listeners.stop()
    assert path.read_text() == "not ours"


def test_the_owner_of_a_port_is_named() -> None:
    with socket.create_server((LOOPBACK, 0)) as mine:
        assert f"(pid {os.getpid()})" in owner_of(HostPort(LOOPBACK, mine.getsockname()[1]))


def test_the_owner_of_a_wildcard_is_named_for_an_address_it_covers() -> None:
    with socket.create_server(("0.0.0.0", 0)) as mine:
        assert f"(pid {os.getpid()})" in owner_of(HostPort(LOOPBACK, mine.getsockname()[1]))


def test_a_free_port_has_no_owner() -> None:
    assert owner_of(HostPort(LOOPBACK, unused_port())) == ""


def test_the_owner_of_a_unix_socket_is_named(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mine:
        mine.bind(str(directory / "x.sock"))
        mine.listen()
        assert f"(pid {os.getpid()})" in owner_of(UnixAddress(directory / "x.sock"))
    wait_until(lambda: owner_of(UnixAddress(directory / "x.sock")) == "")


def test_a_reassigned_listener_is_logged_under_its_new_route() -> None:
    log = FakeLog()
    listener = Listener(HostPort(LOOPBACK, 0), log.log)
    listener.deliver_to("one", lambda sock, _peer: sock.close())
    listener.deliver_to("two", lambda sock, _peer: sock.close())
    listener.close()
    assert [(line["event"], line["route"]) for line in log.lines] == [
        ("listener.bound", "one"),
        ("listener.closed", "two"),
    ]


def test_a_failed_rollback_of_permissions_does_not_hide_the_first_error(listeners: Listeners, directory: Path) -> None:
    path = directory / "x.sock"
    change(listeners, route(UnixAddress(path)))
    path.unlink()
    changed = [route(UnixAddress(path, mode=0o600))]
    prepared = listeners.prepare(changed, all_routes=changed)
    listeners.rollback(prepared)
    assert "no such file" in str(prepared.failures["redis"])


def test_a_socket_whose_permissions_cannot_be_set_leaves_no_file(directory: Path) -> None:
    with pytest.raises(BindError, match="no such user or group"):
        bind(UnixAddress(directory / "x.sock", user="nobody-has-this-name"))
    assert list(directory.iterdir()) == []


def test_a_socket_file_that_cannot_be_removed_does_not_fail_the_close(
    listeners: Listeners, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    change(listeners, route(UnixAddress(directory / "x.sock")), other := route(HostPort(LOOPBACK, unused_port()), "b"))
    monkeypatch.setattr(Path, "unlink", denied)
    listeners.stop()
    assert listeners.of(other) is None


def test_an_interrupted_close_is_finished_by_the_next_one(listeners: Listeners) -> None:
    ports = [unused_port() for _ in range(2)]
    change(listeners, *[route(HostPort(LOOPBACK, port), f"r{port}") for port in ports])
    gevent.sleep(0)  # the listeners wait for connections now
    closing = gevent.Greenlet.spawn(listeners.close_unused, [])
    gevent.sleep(0)  # the close waits until the first listener has stopped
    closing.kill()
    assert [connects(LOOPBACK, port) for port in ports] == [False, True]
    listeners.stop()
    assert not connects(LOOPBACK, ports[1])


def test_a_bug_in_taking_over_a_connection_costs_that_connection_only() -> None:
    served: list[str] = []

    def take(sock: socket.socket, peer: str) -> None:
        sock.close()
        served.append(peer)
        if len(served) == 1:
            raise LookupError("a bug")

    listener = Listener(HostPort(LOOPBACK, port := unused_port()), FakeLog().log)
    with caught_crashes() as crashes:
        listener.deliver_to("one", take)
        assert connects(LOOPBACK, port)
        assert connects(LOOPBACK, port)
        wait_until(lambda: len(served) == 2)
        listener.close()
    assert [str(crash) for crash in crashes] == ["a bug"]


# --- stuck listeners, as the watchdog finds them ---


def stuck(listeners: Listeners) -> int:
    return len(listeners.find_stuck())


def test_a_listener_that_accepts_is_not_stuck(listeners: Listeners) -> None:
    one = route(HostPort(LOOPBACK, unused_port()))
    change(listeners, one)
    for _ in range(3):
        assert stuck(listeners) == 0
        assert connects(LOOPBACK, one.listen.port)  # type: ignore[union-attr]
        gevent.sleep(0.01)


def test_a_listener_that_blocks_on_a_connection_is_stuck(listeners: Listeners) -> None:
    address = HostPort(LOOPBACK, unused_port())
    change(listeners, route(address), route(HostPort(LOOPBACK, unused_port()), "other"))
    free = Event()
    listeners.of(route(address)).deliver_to("redis", lambda sock, _peer: (free.wait(), sock.close()))  # type: ignore[union-attr]
    with socket.create_connection((LOOPBACK, address.port)):
        gevent.sleep(0.01)
        assert [stuck(listeners) for _ in range(3)] == [0, 0, 0]  # no client waits
        with socket.create_connection((LOOPBACK, address.port)):
            assert [stuck(listeners) for _ in range(3)] == [0, 1, 1]
            free.set()
            gevent.sleep(0.01)
            assert stuck(listeners) == 0


def test_a_listener_whose_greenlet_has_ended_is_stuck(listeners: Listeners) -> None:
    one = route(HostPort(LOOPBACK, unused_port()))
    change(listeners, one)
    listener = listeners.of(one)
    assert listener is not None
    listener._greenlet.kill()  # type: ignore[union-attr]
    assert listeners.find_stuck() == [listener]


def test_a_listener_that_may_not_accept_is_not_stuck(listeners: Listeners) -> None:
    address = HostPort(LOOPBACK, unused_port())
    change(listeners, route(address))
    gevent.sleep(0)
    listeners.accepting.clear()
    with socket.create_connection((LOOPBACK, address.port)) as client:
        client.setblocking(False)
        gevent.sleep(0.01)
        assert [stuck(listeners) for _ in range(3)] == [0, 0, 0]
        with pytest.raises(BlockingIOError):
            client.recv(1)
        listeners.accepting.set()
        gevent.sleep(0.01)
        assert client.recv(1) == b""


class TestLostSocketFile:
    """The file of a Unix listener is removed or replaced behind the agent's back."""

    def test_removed_file_is_bound_again(self, listeners: Listeners, directory: Path) -> None:
        address = UnixAddress(directory / "redis.sock", 0o600)
        change(listeners, route(address))
        before = listeners.of(route(address))
        address.path.unlink()
        assert listeners.mend(route(address)) == ""
        assert listeners.of(route(address)) is not before
        assert stat.S_IMODE(address.path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(address.path))
            gevent.sleep(0.01)
            assert client.recv(1) == b""

    def test_present_file_is_left_alone(self, listeners: Listeners, directory: Path) -> None:
        address = UnixAddress(directory / "redis.sock")
        change(listeners, route(address))
        before = listeners.of(route(address))
        assert listeners.mend(route(address)) == ""
        assert listeners.of(route(address)) is before

    @pytest.mark.parametrize("kind", ["file", "directory", "socket"])
    def test_file_of_another_program_stays_until_it_is_gone(
        self, listeners: Listeners, directory: Path, kind: str
    ) -> None:
        address = UnixAddress(directory / "redis.sock")
        change(listeners, route(address))
        address.path.unlink()
        other = socket.socket(socket.AF_UNIX)
        with other:
            if kind == "socket":
                other.bind(str(address.path))
                other.listen()
            else:
                address.path.mkdir() if kind == "directory" else address.path.touch()
            found = address.path.lstat().st_ino
            assert "its file was replaced" in listeners.mend(route(address))
            assert address.path.lstat().st_ino == found
        address.path.rmdir() if kind == "directory" else address.path.unlink()
        assert listeners.mend(route(address)) == ""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(address.path))

    def test_missing_directory_is_reported_with_its_remedy(self, listeners: Listeners, directory: Path) -> None:
        address = UnixAddress(directory / "run" / "redis.sock")
        address.path.parent.mkdir()
        change(listeners, route(address))
        address.path.unlink()
        address.path.parent.rmdir()
        assert "create its directory first" in listeners.mend(route(address))

    def test_nothing_is_bound_while_another_process_may_accept(self, listeners: Listeners, directory: Path) -> None:
        address = UnixAddress(directory / "redis.sock")
        change(listeners, route(address))
        address.path.unlink()
        listeners.accepting.clear()
        assert listeners.mend(route(address)) == ""
        assert not address.path.exists()

    def test_tcp_listener_has_no_file_to_lose(self, listeners: Listeners) -> None:
        address = HostPort(LOOPBACK, unused_port())
        change(listeners, route(address))
        assert listeners.mend(route(address)) == ""
