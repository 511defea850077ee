"""Sockets that systemd passes and stores between processes: no client is refused and no port is left dead."""

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.gateway.ports import LOOPBACK, unused_port
from tests.gateway.waiting import scaled
from tests.support.agent.agent_process import AgentProcess, connect
from tests.support.agent.bastion import ANY, Bastion, listening_inode, on, refuses, say
from tests.support.agent.service_manager import Manager, inode

ENDLESS = 600
"""Drain timeout in seconds that no test reaches."""
UNIT = "pomagent.socket"
"""Name under which systemd passes the sockets of a .socket unit."""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def start(bastion: Bastion, manager: Manager, routes: dict[str, str], **tables: dict[str, object]) -> AgentProcess:
    """Start an agent with an empty store."""
    agent = bastion.start(routes, manager.environment, **tables)
    wait_until(lambda: len(manager.kept) == len(routes), what="every socket is stored")
    return agent


def restart(
    bastion: Bastion, manager: Manager, agent: AgentProcess, *, by: signal.Signals | None = None
) -> AgentProcess:
    """Stop the agent and start the next process with the stored sockets, as systemd does."""
    agent.signal(by or signal.SIGTERM)
    agent.process.wait(scaled(20))
    if by is signal.SIGKILL:
        bastion.agents.remove(agent)
    return bastion.resume(manager.environment, manager.passed())


def listener(host: str = LOOPBACK) -> socket.socket:
    return socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


# --- the store ------------------------------------------------------------------------------------------------------


def test_every_listener_is_stored_under_its_address(bastion: Bastion, manager: Manager) -> None:
    port, path = unused_port(), bastion.directory / "e.sock"
    agent = start(bastion, manager, {"echo": on(port), "banner": ANY, "slow": f"unix:{path}"})
    expected = {f"pomagent@127.0.0.1,{port}", "pomagent@127.0.0.1,0@banner", f"pomagent@unix,{path}"}
    assert set(manager.kept) == expected
    by_name = dict(manager.passed())
    assert inode(by_name[f"pomagent@127.0.0.1,{port}"]) == listening_inode(port)
    assert port_of(by_name["pomagent@127.0.0.1,0@banner"]) == agent.port("banner")


def test_the_store_follows_reloads(bastion: Bastion, manager: Manager) -> None:
    old, new, other = unused_port(), unused_port(), unused_port()
    agent = start(bastion, manager, {"echo": on(old)})
    bastion.save({"echo": on(new), "banner": on(other)})
    wait_until(lambda: manager.kept == sorted([f"pomagent@127.0.0.1,{new}", f"pomagent@127.0.0.1,{other}"]))
    assert refuses(old)
    bastion.save({"banner": {"listen": on(other), "enabled": False}, "echo": on(new)})
    wait_until(lambda: manager.kept == [f"pomagent@127.0.0.1,{new}"])
    assert refuses(other)
    assert agent.status()["sessions"] == 0


def test_port_of_a_removed_route_refuses_even_if_the_store_keeps_its_socket(bastion: Bastion, manager: Manager) -> None:
    old = unused_port()
    agent = start(bastion, manager, {"echo": on(old), "banner": ANY})
    with ExitStack() as kept:
        for _, sock in manager.passed():
            kept.callback(os.close, os.dup(sock.fileno()))
        bastion.save({"banner": ANY})
        agent.wait_for("config.applied", stopped=1)
        assert refuses(old)
        bastion.save({"echo": on(old), "banner": ANY})
        agent.wait_for("config.applied", started=1)
        with connect(old) as client:
            assert say(client) == b"hello\n"


def test_notification_is_repeated_when_the_queue_of_systemd_was_full(bastion: Bastion, manager: Manager) -> None:
    routes = {"echo": ANY, "banner": ANY, "slow": ANY}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as busy:
        busy.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                busy.sendto(b"FROM=elsewhere", manager.environment["NOTIFY_SOCKET"])
    start(bastion, manager, routes)
    assert manager.heard("READY") == ["1"]
    assert len(manager.heard("FDSTORE")) == 3


def test_quarantined_route_is_stored_when_it_listens(bastion: Bastion, manager: Manager) -> None:
    with listener() as other:
        taken = port_of(other)
        agent = bastion.start({"echo": ANY, "banner": on(taken)}, manager.environment)
        wait_until(lambda: manager.kept == ["pomagent@127.0.0.1,0@echo"])
    agent.wait_for("listener.bound", route="banner")
    wait_until(lambda: f"pomagent@127.0.0.1,{taken}" in manager.kept)


# --- restarts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_restart_continues_with_the_same_sockets(bastion: Bastion, manager: Manager, by: signal.Signals) -> None:
    path = bastion.directory / "e.sock"
    first = start(bastion, manager, {"echo": ANY, "banner": on(unused_port()), "slow": f"unix:{path}"})
    before, inodes = {name: first.port(name) for name in ("echo", "banner")}, [inode(s) for _, s in manager.passed()]
    file = path.stat().st_ino
    second = restart(bastion, manager, first, by=by)
    assert {name: second.port(name) for name in ("echo", "banner")} == before
    assert (path.stat().st_ino, path.is_socket()) == (file, True)
    with connect(second.port("echo")) as client:
        assert say(client) == b"hello\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    second.wait_for("session.opened", route="slow")
    assert [inode(s) for _, s in manager.passed()] == inodes  # no socket was stored twice


def test_client_that_connects_between_two_processes_is_served_by_the_second(bastion: Bastion, manager: Manager) -> None:
    first = start(bastion, manager, {"echo": ANY}, drain={"timeout_s": ENDLESS})
    port = first.port("echo")
    with connect(port) as early, ExitStack() as waiting:
        assert say(early) == b"hello\n"
        first.signal(signal.SIGTERM)
        first.wait_for("listener.closed")
        late = [waiting.enter_context(connect(port)) for _ in range(50)]
        assert say(early, b"still there\n") == b"still there\n"
        early.close()
        assert first.process.wait(scaled(20)) == 0
        bastion.resume(manager.environment, manager.passed())
        assert [say(client) for client in late] == [b"hello\n"] * len(late)


def test_port_of_a_route_removed_at_the_restart_refuses(bastion: Bastion, manager: Manager) -> None:
    gone, path = unused_port(), bastion.directory / "e.sock"
    first = start(bastion, manager, {"echo": ANY, "banner": on(gone), "slow": f"unix:{path}"})
    bastion.save({"echo": ANY})
    # before a reload is possible, as if the file were edited while no agent ran
    restart(bastion, manager, first, by=signal.SIGKILL)
    wait_until(lambda: manager.kept == ["pomagent@127.0.0.1,0@echo"])
    assert refuses(gone)


@pytest.mark.parametrize(("old", "new"), [("0.0.0.0", LOOPBACK), (LOOPBACK, "0.0.0.0")])
def test_address_that_overlaps_a_stored_one_takes_over(bastion: Bastion, manager: Manager, old: str, new: str) -> None:
    port = unused_port()
    unsafe = {"unsafe_listen": True}
    first = bastion.start({"echo": {"listen": f"{old}:{port}", **unsafe}}, manager.environment)
    wait_until(lambda: manager.kept)
    first.signal(signal.SIGKILL)
    first.process.wait()
    bastion.agents.remove(first)
    bastion.save({"echo": {"listen": f"{new}:{port}", **unsafe}})
    bastion.resume(manager.environment, manager.passed())
    wait_until(lambda: manager.kept == [f"pomagent@{new},{port}"])
    with connect(port) as client:
        assert say(client) == b"hello\n"


def test_unix_socket_is_recreated_when_its_file_is_gone(bastion: Bastion, manager: Manager) -> None:
    path = bastion.directory / "e.sock"
    first = start(bastion, manager, {"slow": f"unix:{path}"})
    first.signal(signal.SIGTERM)
    first.process.wait(scaled(20))
    path.unlink()
    second = bastion.resume(manager.environment, manager.passed())
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        second.wait_for("session.opened", route="slow")
    wait_until(lambda: len(manager.kept) == 1)


def test_stop_without_a_service_manager_removes_the_socket_file(bastion: Bastion) -> None:
    path = bastion.directory / "e.sock"
    agent = bastion.start({"slow": f"unix:{path}"})
    agent.signal(signal.SIGTERM)
    assert agent.process.wait(scaled(20)) == 0
    assert not path.exists()


# --- sockets of a .socket unit --------------------------------------------------------------------------------------


def test_socket_of_a_unit_is_found_by_its_address_and_not_stored(bastion: Bastion, manager: Manager) -> None:
    with listener() as mine:
        bastion.save({"echo": on(port_of(mine))})
        agent = bastion.resume(manager.environment, [(UNIT, mine)])
        assert listening_inode(port_of(mine)) == inode(mine)
        with connect(port_of(mine)) as client:
            assert say(client) == b"hello\n"
        wait_until(lambda: manager.heard("READY"))
        bastion.save({"banner": ANY})
        unwanted = agent.wait_for("listener.unwanted")
        assert unwanted["listen"] == on(port_of(mine))
        wait_until(lambda: manager.kept == ["pomagent@127.0.0.1,0@banner"])
        assert not refuses(port_of(mine))  # only systemd may close the socket
    assert not manager.heard("FDSTOREREMOVE")


def test_socket_of_a_unit_without_a_route_is_reported_and_closed(bastion: Bastion, manager: Manager) -> None:
    with listener() as mine, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        bastion.save({"echo": ANY})
        agent = bastion.resume(manager.environment, [(UNIT, mine), ("odd", datagrams)])
        assert [event["listen"] for event in agent.events("listener.unwanted")] == [
            on(port_of(mine)), "no stream socket that listens"
        ]  # fmt: skip
        held = {Path(f"/proc/{agent.pid}/fd/{fd}").resolve().name for fd in range(200)}
        assert f"socket:[{inode(mine)}]" not in held


def test_sockets_of_units_are_matched_by_address_and_not_by_name(bastion: Bastion, manager: Manager) -> None:
    with listener() as four, listener("::1") as six:
        bastion.save({"echo": on(port_of(four)), "banner": f"[::1]:{port_of(six)}"})
        agent = bastion.resume(manager.environment, [("banner", four), ("", six)])
        with connect(port_of(four)) as client:
            assert say(client) == b"hello\n"
        assert not agent.events("listener.unwanted")
        wait_until(lambda: manager.heard("READY"))
        assert manager.kept == []


def test_unix_socket_of_a_unit_keeps_its_mode_and_its_file(bastion: Bastion, manager: Manager) -> None:
    path = bastion.directory / "e.sock"
    with socket.socket(socket.AF_UNIX) as mine:
        mine.bind(str(path))
        mine.listen()
        path.chmod(0o600)
        bastion.save({"slow": f"unix:{path}"})
        agent = bastion.resume(manager.environment, [(UNIT, mine)])
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            agent.wait_for("session.opened")
        bastion.save({"banner": ANY})
        agent.wait_for("listener.unwanted")
        assert path.is_socket()


def test_credential_commands_do_not_inherit_the_variables_of_sockets(bastion: Bastion, manager: Manager) -> None:
    said = bastion.directory / "variables"
    look = "[os.path.realpath('/proc/self/fd/' + fd) for fd in os.listdir('/proc/self/fd')]"
    show = f"import json, os; open({str(said)!r}, 'w').write(json.dumps([dict(os.environ), {look}]))"
    command = [sys.executable, "-c", f"{show}; print(open({str(bastion.token_file)!r}).read())"]
    with listener() as mine:
        text = bastion.save({"echo": on(port_of(mine))}).read_text()
        bastion.save_text(text.replace('service_account_file = "token"', f"command = {json.dumps(command)}"))
        bastion.resume(manager.environment, [(UNIT, mine)])
        with connect(port_of(mine)) as client:
            assert say(client) == b"hello\n"
    variables, descriptors = json.loads(said.read_text())
    assert not [name for name in variables if name.startswith("LISTEN_")]
    assert not [name for name in descriptors if "socket:" in name]
