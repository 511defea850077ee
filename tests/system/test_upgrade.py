"""``pomagent upgrade``: another process takes over, and clients do not notice."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pomagent.admin.control.client import ControlError, ask
from tests.conftest import wait_until
from tests.gateway.ports import LOOPBACK, unused_port
from tests.gateway.waiting import scaled
from tests.support.agent.agent_process import AgentProcess, connect, read_to_end
from tests.support.agent.bastion import ANY, Bastion, hear, listening_inode, on, refuses, say
from tests.support.agent.service_manager import Manager
from tests.support.load.pump import Pump
from tests.support.load.steady_load import Load

BUSY = {"listen": ANY, "protocol": "generic", "pool_min": 8, "pool_max": 16, "max_sessions": 2000}
"""A route for a load on a slow machine. The gateway closes a tunnel a second after its client."""
ENDLESS = 600
"""A limit in seconds that no test reaches."""
GOOD = "from pomagent.__main__ import main\nmain()\n"
SABOTAGED = """
import os, time
from pomagent.daemon.upgrade.channel import Channel
send = Channel.send

def send_unless(self, message, sockets=()):
    if message["is"] == {word!r}:
        {what}
    send(self, message, sockets)

Channel.send = send_unless
"""
"""A version that fails when it sends this message of the upgrade."""
PRINTING_IMPORTS = """
import os, sys

def print_import(event, details):
    if event == "import" and os.path.exists({flag!r}):
        os.write(2, f"late import: {{details[0]}}\\n".encode())

sys.addaudithook(print_import)
"""
"""A version that prints each import once the flag file exists."""
CRASH, HANG = "os._exit(3)", "time.sleep(600)"


class Service:
    """An agent with a program that tests may replace, and its successors, which write to the same log."""

    def __init__(self, bastion: Bastion) -> None:
        self._bastion = bastion
        self._program = bastion.directory / "pomagent-of-this-test"
        self._agent: AgentProcess | None = None

    def install(self, code: str) -> None:
        """Replace the program by another file of the same name, as a package manager does."""
        draft = self._program.with_suffix(".new")
        draft.write_text(f"#!{sys.executable}\n{code}")
        draft.chmod(0o755)
        draft.rename(self._program)

    def uninstall(self) -> None:
        self._program.unlink()

    def start(
        self, routes: dict[str, Any], environment: dict[str, str] | None = None, *, before: str = "", **tables: Any
    ) -> AgentProcess:
        """``before`` is code that the program runs first."""
        self.install(before + GOOD)
        self._agent = self._bastion.start(routes, environment, program=self._program, **tables)
        return self._agent

    @property
    def agent(self) -> AgentProcess:
        assert self._agent is not None
        return self._agent

    @property
    def pids(self) -> list[int]:
        """All processes that have served, the latest one last."""
        return [event["pid"] for event in self.agent.events("agent.started")]

    @property
    def running(self) -> list[int]:
        """Every process that runs on the test's file, even if it has never served."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if self._is_ours(pid)]

    def upgrade(self, *arguments: str) -> int:
        """Run ``pomagent upgrade`` and return the new main process."""
        done = self.agent.command("upgrade", *arguments)
        assert done.returncode == 0, f"{done.stderr}\n{self.agent.log}"
        self.wait_for("agent.started", len(self.agent.events("agent.upgraded")) + 1)
        return self.pids[-1]

    def wait_for(self, name: str, count: int = 1, **fields: object) -> None:
        """Wait for the ``count``-th such event of all processes together."""
        what = f"{name} {fields}"
        wait_until(lambda: len(self.agent.events(name, **fields)) >= count, 20, f"{what}\n{self.agent.log}")

    def wait_for_end(self, *pids: int) -> None:
        wait_until(lambda: not set(pids) & set(self.running), 20, f"{pids} have ended\n{self.agent.log}")

    def end(self) -> None:
        """Stop the main process and check how all processes end."""
        main = self.pids[-1]
        with suppress(ProcessLookupError):
            os.kill(main, signal.SIGTERM)
        self.wait_for_end(*self.pids)

    def kill(self) -> None:
        for pid in self.running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _is_ours(self, pid: int) -> bool:
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            return "run" in words and str(self._bastion.path) in words
        return False


@pytest.fixture
def service(bastion: Bastion) -> Iterator[Service]:
    """Kills all its processes at the end of the test."""
    service = Service(bastion)
    try:
        yield service
        service.end()
    finally:
        service.kill()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


# --- upgrades that succeed


def test_sessions_stay_where_they_are_and_new_ones_are_served_by_the_new_process(service: Service) -> None:
    agent = service.start({"echo": ANY})
    old, port = agent.pid, agent.port("echo")
    inode = listening_inode(port)
    with connect(port) as before:
        assert say(before) == b"hello\n"
        new = service.upgrade()
        assert new != old
        assert listening_inode(port) == inode
        with connect(port) as after:
            assert say(after) == b"hello\n"
            assert say(before, b"still there\n") == b"still there\n"
            status = agent.status()
            assert (status["pid"], status["sessions"]) == (new, 1)
            assert [(process["pid"], process["sessions"]) for process in status["old_processes"]] == [(old, 1)]
            assert f"old process {old}" in agent.command("status").stdout
    assert agent.process.wait(scaled(20)) == 0
    wait_until(lambda: agent.status()["old_processes"] == [])
    assert agent.events("control.changed", command="upgrade", uid=os.getuid())


def test_no_client_is_refused_and_no_byte_of_an_open_session_changes(service: Service, record_property) -> None:
    agent = service.start({"echo": BUSY})
    port = agent.port("echo")
    with Pump(port, 1) as one, Pump(port, 2) as other, Load(port) as load:
        for _ in range(2):
            service.upgrade()
            load.go_on()
        one.go_on()
        other.go_on()
    assert (load.refused, load.lost) == ([], [])
    assert agent.process.wait(scaled(20)) == 0
    record_property("two upgrades, connections", load.count)
    record_property("two upgrades, longest wait in ms", load.longest_wait_ms)


def test_signal_upgrades_too(service: Service) -> None:
    agent = service.start({"echo": ANY})
    agent.signal(signal.SIGUSR2)
    service.wait_for("agent.started", 2)
    assert agent.process.wait(scaled(20)) == 0
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"


def test_unix_listeners_status_page_and_control_socket_stay_where_they_are(bastion: Bastion, service: Service) -> None:
    path, page = bastion.directory / "e.sock", unused_port()
    agent = service.start({"slow": f"unix:{path}"}, status={"listen": on(page)})
    control = Path(agent.environment["POMAGENT_STATUS__CONTROL_SOCKET"])
    files, inode = (path.stat().st_ino, control.stat().st_ino), listening_inode(page)
    new = service.upgrade()
    service.wait_for_end(agent.pid)
    assert (path.stat().st_ino, control.stat().st_ino) == files
    assert listening_inode(page) == inode
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        service.wait_for("session.opened", route="slow")
    with connect(page) as client:
        client.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert hear(client, 15) == b"HTTP/1.1 200 OK"
    assert agent.status()["pid"] == new


def test_drain_limits_old_sessions_to_its_timeout(service: Service) -> None:
    agent = service.start({"echo": ANY}, drain={"timeout_s": 1})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        service.upgrade("--drain")
        service.wait_for("session.closed", reason="drained")
    assert agent.process.wait(scaled(20)) == 0


def test_second_upgrade_is_possible_while_old_sessions_go_on_and_a_stop_ends_them_all(service: Service) -> None:
    agent = service.start({"echo": ANY}, drain={"timeout_s": 1})
    port, first = agent.port("echo"), agent.pid
    with connect(port) as oldest, connect(port) as old:
        assert say(oldest) == say(old) == b"hello\n"
        second = service.upgrade()
        with connect(port) as newer:
            assert say(newer) == b"hello\n"
            third = service.upgrade()
            wait_until(lambda: agent.status()["sessions"] == 0)
            processes = {process["pid"]: process["sessions"] for process in agent.status()["old_processes"]}
            assert processes == {first: 2, second: 1}
            assert [say(client) for client in (oldest, old, newer)] == [b"hello\n"] * 3
            os.kill(third, signal.SIGTERM)
            service.wait_for_end(first, second, third)
    assert agent.process.wait(scaled(20)) == 0
    assert [event["reason"] for event in agent.events("session.closed")] == ["drained"] * 3
    assert refuses(port)


def test_second_signal_ends_sessions_of_old_processes_at_once(service: Service) -> None:
    agent = service.start({"echo": ANY}, drain={"timeout_s": ENDLESS})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        new = service.upgrade()
        os.kill(new, signal.SIGTERM)
        service.wait_for("agent.draining", 2)
        assert say(client) == b"hello\n"
        os.kill(new, signal.SIGTERM)
        service.wait_for_end(agent.pid, new)
    assert agent.events("session.closed")[0]["reason"] == "drained"


def test_old_process_treats_its_own_signal_as_the_first(service: Service) -> None:
    agent = service.start({"echo": ANY}, drain={"timeout_s": ENDLESS})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        service.upgrade()
        agent.signal(signal.SIGTERM)
        assert say(client) == b"hello\n"
        agent.signal(signal.SIGTERM)
        assert agent.process.wait(scaled(20)) == 0
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"


def test_old_sessions_outlive_a_main_process_that_is_killed(service: Service) -> None:
    agent = service.start({"echo": ANY})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        new = service.upgrade()
        os.kill(new, signal.SIGKILL)
        service.wait_for_end(new)
        assert say(client) == b"hello\n"
    assert agent.process.wait(scaled(20)) == 0


# --- messages to the service manager


def test_manager_follows_the_new_process_and_gets_no_more_messages_from_the_old_one(
    service: Service, manager: Manager
) -> None:
    environment = {**manager.environment, "WATCHDOG_USEC": "200000"}
    agent = service.start({"echo": ANY, "banner": on(unused_port())}, environment)
    wait_until(lambda: len(manager.kept) == 2)
    kept = manager.kept
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        agent.signal(signal.SIGUSR2)
        (new,) = map(int, wait_until(lambda: manager.heard("MAINPID"), 40))
        assert manager.senders("MAINPID") == [agent.pid]
        wait_until(lambda: manager.senders("WATCHDOG").count(new) > 2)
    assert agent.process.wait(scaled(20)) == 0
    senders = manager.senders("from")
    assert set(senders[: senders.index(new)]) == {agent.pid}
    assert set(senders[senders.index(new) :]) == {new}
    assert manager.senders("READY") == [agent.pid, new]
    assert not manager.heard("STOPPING")
    assert (manager.kept, len(manager.heard("FDSTORE"))) == (kept, 2)


def test_manager_gets_no_message_from_a_process_that_fails(service: Service, manager: Manager) -> None:
    agent = service.start({"echo": ANY}, manager.environment)
    service.install(SABOTAGED.format(word="serving", what=CRASH) + GOOD)
    assert agent.command("upgrade").returncode == 69
    assert set(manager.senders("from")) == {agent.pid}
    assert not manager.heard("MAINPID")


# --- upgrades that fail


def still_serves(service: Service, open_before: socket.socket) -> None:
    """Check that the same process runs alone and still serves its sessions, its port and its commands."""
    agent = service.agent
    assert agent.wait_for("agent.upgrade_failed")["error"]
    wait_until(lambda: service.running == [agent.pid], what="nothing is left of the new process")
    assert say(open_before) == b"hello\n"
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
    assert agent.status()["pid"] == agent.pid
    assert agent.command("reload").returncode == 0


def test_invalid_file_is_reported_with_every_problem(bastion: Bastion, service: Service) -> None:
    agent = service.start({"echo": ANY})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        good = bastion.path.read_text()
        bastion.save_text(good + '\n[[routes]]\nlisten = 5\nfrom = "nothing"\n')
        done = agent.command("upgrade")
        assert done.returncode == 78
        assert ".listen" in done.stderr
        assert ".from" in done.stderr
        assert "the running agent goes on" in done.stderr
        bastion.save_text(good)
        still_serves(service, client)


def test_route_that_only_the_new_process_cannot_bind_ends_it(bastion: Bastion, service: Service) -> None:
    agent = service.start({"echo": ANY})
    with connect(agent.port("echo")) as client, socket.create_server((LOOPBACK, 0)) as other:
        assert say(client) == b"hello\n"
        bastion.save({"echo": ANY, "banner": on(other.getsockname()[1])})
        agent.wait_for("config.rejected")
        done = agent.command("upgrade")
        assert (done.returncode, "address already in use" in done.stderr) == (77, True), done.stderr
        bastion.save({"echo": ANY})
        still_serves(service, client)


def test_route_that_is_quarantined_already_prevents_no_upgrade(service: Service) -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        agent = service.start({"echo": ANY, "banner": on(other.getsockname()[1])})
        service.upgrade()
        assert agent.process.wait(scaled(20)) == 0
    service.wait_for("listener.bound", route="banner")


@pytest.mark.parametrize("code", ["raise SystemExit(3)\n", "this is no Python\n", ""])
def test_program_that_ends_before_its_hello_changes_nothing(service: Service, code: str) -> None:
    agent = service.start({"echo": ANY})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        service.install(code)
        done = agent.command("upgrade")
        assert (done.returncode, done.stdout) == (69, "")
        still_serves(service, client)


def test_program_that_is_gone_is_started_as_python_was(service: Service) -> None:
    """The file is missing, so the interpreter is started, which reports the error."""
    agent = service.start({"echo": ANY})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        service.uninstall()
        done = agent.command("upgrade")
        assert (done.returncode, "exit code 2" in done.stderr) == (69, True)
        still_serves(service, client)


@pytest.mark.parametrize(
    ("word", "what"),
    [("hello", CRASH), ("ready", CRASH), ("serving", CRASH), ("taken", CRASH), ("serving", HANG), ("taken", HANG)],
)
def test_new_process_that_gets_stuck_half_way_changes_nothing(service: Service, word: str, what: str) -> None:
    agent = service.start({"echo": BUSY})
    with connect(agent.port("echo")) as client, Pump(agent.port("echo"), 3) as pump:
        assert say(client) == b"hello\n"
        service.install(SABOTAGED.format(word=word, what=what) + GOOD)
        with Load(agent.port("echo")) as load:
            assert agent.command("upgrade").returncode == 69
            load.go_on()
        # Clients that the crashed process had accepted are lost with it, as with any process.
        assert (load.refused, bool(load.lost) and word != "taken") == ([], False)
        still_serves(service, client)
        pump.go_on()
    service.install(GOOD)
    service.upgrade()
    assert agent.process.wait(scaled(20)) == 0


def test_stop_cancels_an_upgrade(service: Service) -> None:
    agent = service.start({"echo": ANY})
    service.install(SABOTAGED.format(word="hello", what=HANG) + GOOD)
    agent.signal(signal.SIGUSR2)
    wait_until(lambda: len(service.running) == 2)
    agent.signal(signal.SIGTERM)
    assert agent.process.wait(scaled(20)) == 0
    wait_until(lambda: service.running == [])


def test_second_upgrade_and_login_are_declined_during_an_upgrade(service: Service) -> None:
    agent = service.start({"echo": ANY})
    control = Path(agent.environment["POMAGENT_STATUS__CONTROL_SOCKET"])
    service.install(SABOTAGED.format(word="hello", what=HANG) + GOOD)
    agent.signal(signal.SIGUSR2)
    agent.wait_for("agent.upgrading")
    for url in ("/upgrade", "/token", "/forget-token"):
        with pytest.raises(ControlError, match="under way"):
            ask(control, "POST", url, {"gateway": "demo", "token": "x"})


# --- files that are replaced while the agent runs


def test_running_agent_imports_nothing_more(bastion: Bastion, service: Service) -> None:
    flag, page = bastion.directory / "started", unused_port()
    before = PRINTING_IMPORTS.format(flag=str(flag))
    agent = service.start({"echo": ANY}, before=before, status={"listen": on(page)}, drain={"timeout_s": 1})
    flag.touch()
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        good = bastion.path.read_text()
        bastion.save_text(good + "no TOML")
        assert agent.command("reload").returncode == 78
        routes = {"echo": ANY, "refused": ANY, "slow": f"unix:{bastion.directory / 's.sock'}"}
        bastion.save(routes, status={"listen": on(page)}, drain={"timeout_s": 1})
        assert agent.command("reload").returncode == 0
        assert agent.status()["sessions"] == 1
        for path in ("metrics", "readyz", "nothing"):
            with connect(page) as visitor:
                visitor.sendall(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
                assert read_to_end(visitor)
        with suppress(ConnectionResetError), connect(agent.port("refused")) as other:
            assert read_to_end(other) == b""
        agent.signal(signal.SIGUSR1)
        agent.signal(signal.SIGTERM)
        assert agent.process.wait(scaled(20)) == 0
    assert [line for line in agent.log.splitlines() if line.startswith("late import")] == []


def test_paused_routes_stay_paused_until_an_operator_resumes_them(service: Service) -> None:
    agent = service.start({"echo": ANY, "page": ANY}, defaults={"warm": "tunnel"})
    assert agent.command("pause", "echo").returncode == 0
    service.upgrade()
    states = {route["name"]: route["state"] for route in agent.status()["routes"]}
    assert (states["echo"], states["page"] == "paused") == ("paused", False)
    assert agent.command("resume", "echo").stdout == "resumed: echo\n"
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"


def test_sessions_of_an_old_process_are_counted_and_not_listed(service: Service) -> None:
    agent = service.start({"echo": ANY})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        old = service.pids[-1]
        service.upgrade()
        shown = agent.command("sessions").stdout.splitlines()
        assert shown == ["0 sessions", f"old process {old}: 1 session left, not listed here"]
