"""How the real agent stops, and what it reports to the service manager meanwhile."""

import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.gateway.destinations import HANDLERS
from tests.gateway.facade import destination
from tests.gateway.ports import unused_port
from tests.gateway.waiting import scaled
from tests.support.agent.agent_process import AgentProcess, connect, read_to_end
from tests.support.agent.bastion import ANY, Bastion, hear, on, refuses, say
from tests.support.agent.service_manager import Manager

BLOCKABLE = """
import signal, time
from pomagent.__main__ import main

def block_the_hub(*_):
    print("blocked", flush=True)
    time.sleep(600)

signal.signal(signal.SIGRTMIN, block_the_hub)
main()
"""
"""An agent with a command that blocks its hub, which the product does not have."""
REPORTING_GARBAGE = """
import atexit, gc, os
from pomagent.__main__ import main

atexit.register(lambda: os.write(2, f"garbage: {gc.isenabled()} {gc.get_freeze_count() > 10_000}\\n".encode()))
main()
"""
"""An agent that prints at its end whether garbage is collected and whether the objects of the start are frozen."""
ENDLESS = 600
"""Drain timeout in seconds that no test reaches."""
EXIT_TIMEOUT_S = 20


def ended(agent: AgentProcess) -> int:
    """Wait until the agent ends by itself and return its exit code. Blocks."""
    return agent.process.wait(scaled(EXIT_TIMEOUT_S))


# --- sessions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_the_listeners_and_lets_an_open_session_finish(
    bastion: Bastion, number: signal.Signals
) -> None:
    agent = bastion.start({"echo": ANY}, drain={"timeout_s": ENDLESS})
    port = agent.port("echo")
    with connect(port) as client:
        assert say(client) == b"hello\n"
        agent.signal(number)
        assert agent.wait_for("agent.draining")["sessions_left"] == 1
        wait_until(lambda: refuses(port))
        assert say(client, b"still there\n") == b"still there\n"
    assert ended(agent) == 0
    assert agent.events("session.closed")[0]["reason"] == "finished"
    stopped = agent.events("agent.stopped")[0]
    assert (stopped["signal"], stopped["sessions_left"]) == (number.name, 0)


def test_drain_command_stops_the_agent_and_a_second_one_does_not_hurry_it(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, drain={"timeout_s": ENDLESS})
    port = agent.port("echo")
    with connect(port) as client:
        assert say(client) == b"hello\n"
        for _ in range(2):
            done = agent.command("drain")
            assert (done.returncode, done.stdout) == (0, "draining: 1 session left\n"), done.stderr
        wait_until(lambda: refuses(port))
        assert say(client, b"still there\n") == b"still there\n"
    assert ended(agent) == 0
    assert agent.events("control.changed", command="drain")
    assert agent.events("agent.stopped")[0]["signal"] == "drain"


def test_an_agent_without_sessions_ends_at_once(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, drain={"timeout_s": ENDLESS})
    agent.signal(signal.SIGTERM)
    assert ended(agent) == 0


def test_warm_tunnels_are_closed_at_once(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "tunnel", "pool_min": 4}, drain={"timeout_s": ENDLESS})
    agent.wait_for("pool.filled", count=4)
    agent.signal(signal.SIGTERM)
    assert ended(agent) == 0
    assert len(agent.events("tunnel.closed", reason="drained")) == 4
    wait_until(lambda: bastion.gateway.edge.open_tunnels == 0)


def test_sessions_left_at_the_deadline_are_reset_and_logged_as_drained(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, drain={"timeout_s": 1})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        agent.signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            read_to_end(client)
    assert ended(agent) == 0
    closed = agent.events("session.closed")[0]
    assert (closed["side"], closed["reason"]) == ("agent", "drained")
    assert agent.events("agent.stopped")[0]["sessions_left"] == 1


def test_a_second_signal_ends_the_sessions_at_once(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, drain={"timeout_s": ENDLESS})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        agent.signal(signal.SIGTERM)
        agent.wait_for("agent.draining")
        agent.signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            read_to_end(client)
    assert ended(agent) == 0
    assert agent.events("session.closed")[0]["reason"] == "drained"


def test_waiting_client_still_gets_its_tunnel(bastion: Bastion) -> None:
    authorizer = bastion.gateway.authorizer
    agent = bastion.start({"echo": ANY}, defaults={"warm": "off"}, drain={"timeout_s": ENDLESS})
    authorizer.hang()
    with connect(agent.port("echo")) as client:
        wait_until(lambda: authorizer.checks_for(destination("echo")))
        agent.signal(signal.SIGTERM)
        agent.wait_for("listener.closed")
        authorizer.behave()
        assert say(client) == b"hello\n"
    assert ended(agent) == 0


def test_a_session_of_a_removed_route_is_drained_like_any_other(bastion: Bastion) -> None:
    drain = {"timeout_s": ENDLESS}
    agent = bastion.start({"echo": ANY, "banner": ANY}, drain=drain)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        bastion.save({"banner": ANY}, drain=drain)
        agent.wait_for("config.applied", stopped=1)
        agent.signal(signal.SIGTERM)
        assert agent.wait_for("agent.draining")["sessions_left"] == 1
        wait_until(lambda: refuses(agent.port("banner")))
        assert say(client, b"still there\n") == b"still there\n"
    assert ended(agent) == 0


# --- reloads meanwhile ----------------------------------------------------------------------------------------------


def test_sighup_and_edits_while_draining_are_ignored(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, drain={"timeout_s": ENDLESS})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        agent.signal(signal.SIGTERM)
        agent.wait_for("listener.closed", route="echo")
        bastion.save({"echo": ANY, "banner": ANY})
        agent.signal(signal.SIGHUP)
        for _ in range(100):
            assert say(client) == b"hello\n"
    assert ended(agent) == 0
    assert not agent.events("config.applied")
    assert not agent.events("listener.bound", route="banner")


def test_status_is_served_and_shows_the_drain(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, drain={"timeout_s": ENDLESS})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        agent.signal(signal.SIGTERM)
        agent.wait_for("listener.closed")
        (echo,) = agent.status()["routes"]
        assert (echo["state"], echo["sessions"]) == ("draining", 1)
    assert ended(agent) == 0


def test_reload_request_is_refused_while_draining(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, drain={"timeout_s": ENDLESS})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        agent.signal(signal.SIGTERM)
        agent.wait_for("listener.closed")
        bastion.save({"echo": ANY, "banner": ANY})
        done = agent.command("reload")
        assert (done.returncode, "the agent is stopping" in done.stderr) == (69, True)
    assert ended(agent) == 0
    assert len(agent.events("listener.bound")) == 1


def test_quarantined_route_is_not_bound_while_draining(bastion: Bastion) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        agent = bastion.start({"echo": ANY, "banner": on(taken)}, drain={"timeout_s": ENDLESS})
        agent.wait_for("listener.bind_failed", count=1)
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        agent.signal(signal.SIGTERM)
        agent.wait_for("listener.closed")
        assert {route["state"] for route in agent.status()["routes"]} == {"draining", "quarantined"}
        wait_until(lambda: refuses(taken))
    assert ended(agent) == 0
    assert not agent.events("listener.bound", route="banner")


# --- accept_for_s ---------------------------------------------------------------------------------------------------


def test_agent_accepts_and_dials_for_accept_for_s(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "off"}, drain={"accept_for_s": ENDLESS})
    agent.signal(signal.SIGTERM)
    agent.wait_for("agent.draining")
    for count in range(1, 4):
        with connect(agent.port("echo")) as client:
            assert say(client) == b"hello\n"
        agent.wait_for("tunnel.opened", count=count)
    agent.signal(signal.SIGTERM)
    assert ended(agent) == 0


def test_pools_are_refilled_for_accept_for_s(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, defaults={"warm": "tunnel"}, drain={"accept_for_s": ENDLESS})
    agent.wait_for("pool.filled")
    agent.signal(signal.SIGTERM)
    agent.wait_for("agent.draining")
    before = len(agent.events("pool.filled"))
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        agent.wait_for("pool.filled", count=before + 1)
    agent.signal(signal.SIGTERM)
    assert ended(agent) == 0


def test_listeners_close_after_accept_for_s(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, drain={"accept_for_s": 1, "timeout_s": ENDLESS})
    port = agent.port("echo")
    with connect(port) as client:
        assert say(client) == b"hello\n"
        agent.signal(signal.SIGTERM)
        wait_until(lambda: refuses(port))
        assert say(client, b"still there\n") == b"still there\n"
    assert ended(agent) == 0


# --- the service manager --------------------------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def test_ready_is_sent_when_every_listener_is_bound(bastion: Bastion, manager: Manager, tmp_path: Path) -> None:
    bastion.gateway.edge.stop()  # READY does not depend on the gateway
    ports = [unused_port() for _ in HANDLERS]
    routes = {name: on(port) for name, port in zip(HANDLERS, ports, strict=True)}
    bastion.launch(routes, {"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert wait_until(lambda: manager.heard("READY")) == ["1"]
    assert not any(refuses(port) for port in ports)


def test_ready_is_repeated_until_the_service_manager_has_room_for_it(
    bastion: Bastion, manager: Manager, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as busy, suppress(BlockingIOError):
        busy.setblocking(False)
        while True:
            busy.sendto(b"FROM=elsewhere", str(tmp_path / "notify"))
    bastion.start({"echo": ANY}, {"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert wait_until(lambda: manager.heard("READY")) == ["1"]


def test_ready_is_sent_and_the_status_names_a_quarantined_route(
    bastion: Bastion, manager: Manager, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        bastion.start({"echo": ANY, "banner": taken}, {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert wait_until(lambda: manager.heard("READY")) == ["1"]
        assert "1 quarantined" in manager.heard("STATUS")[0]


def test_the_status_is_one_line_that_follows_what_happens(bastion: Bastion, manager: Manager, tmp_path: Path) -> None:
    agent = bastion.start({"echo": ANY}, {"NOTIFY_SOCKET": str(tmp_path / "notify")}, defaults={"warm": "tunnel"})
    with connect(agent.port("echo")) as client:
        assert say(client) == b"hello\n"
        status = wait_until(lambda: [line for line in manager.heard("STATUS") if "1 sessions" in line])[0]
    assert status.startswith("1 routes: 1 up; ")
    assert status.endswith("generation 1")


def test_stopping_is_sent_once_with_the_signal(bastion: Bastion, manager: Manager, tmp_path: Path) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    agent = bastion.start({"banner": ANY}, environment, drain={"timeout_s": ENDLESS})
    with connect(agent.port("banner")) as client:
        assert hear(client, 4) == b"SSH-"
        assert not manager.heard("STOPPING")
        agent.signal(signal.SIGTERM)
        assert wait_until(lambda: manager.heard("STOPPING")) == ["1"]
    assert ended(agent) == 0
    assert manager.heard("STOPPING") == ["1"]


@pytest.mark.parametrize("phase", ["accept_for_s", "timeout_s"])
def test_drain_asks_for_time_in_steps_and_reports_its_progress(
    bastion: Bastion, manager: Manager, tmp_path: Path, phase: str
) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    agent = bastion.start({"banner": ANY}, environment, drain={phase: ENDLESS})
    with connect(agent.port("banner")) as client:
        assert hear(client, 4) == b"SSH-"
        asked_at_start = len(manager.heard("EXTEND_TIMEOUT_USEC"))
        agent.signal(signal.SIGTERM)
        wait_until(lambda: len(manager.heard("EXTEND_TIMEOUT_USEC")) >= asked_at_start + 2, 30)
        assert {int(usec) for usec in manager.heard("EXTEND_TIMEOUT_USEC")} == {15_000_000}
        told = [status for status in manager.heard("STATUS") if status.startswith("draining: 1 sessions left, ")]
        assert len(told) > 1
        left = [int(status.split()[-2]) for status in told]
        assert left == sorted(left, reverse=True)
        agent.signal(signal.SIGTERM)
    assert ended(agent) == 0


def test_the_watchdog_is_fed_while_the_agent_serves(bastion: Bastion, manager: Manager, tmp_path: Path) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    bastion.start({"echo": ANY}, environment)
    wait_until(lambda: len(manager.heard("WATCHDOG")) >= 3)


def test_watchdog_is_fed_while_clients_wait_for_a_slow_gateway(
    bastion: Bastion, manager: Manager, tmp_path: Path
) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    authorizer = bastion.gateway.authorizer
    authorizer.hang()
    agent = bastion.start({"echo": ANY}, environment)
    with connect(agent.port("echo")) as client:
        wait_until(lambda: authorizer.checks_for(destination("echo")))
        before = len(manager.heard("WATCHDOG"))
        wait_until(lambda: len(manager.heard("WATCHDOG")) >= before + 5)
        authorizer.behave()
        assert say(client) == b"hello\n"


def test_stuck_hub_does_not_feed_the_watchdog_and_leaves_a_trace_when_killed(
    bastion: Bastion, manager: Manager, tmp_path: Path
) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    agent = bastion.start({"echo": ANY}, environment, program=BLOCKABLE)
    wait_until(lambda: manager.heard("WATCHDOG"))
    agent.signal(signal.SIGRTMIN)
    wait_until(lambda: "blocked" in agent.log)
    before = len(manager.heard("WATCHDOG"))
    with connect(agent.port("echo")) as client:  # the kernel still takes connections
        client.settimeout(1)
        with pytest.raises(TimeoutError):
            client.recv(1)
    assert len(manager.heard("WATCHDOG")) == before
    agent.signal(signal.SIGABRT)  # like systemd
    assert agent.process.wait(scaled(EXIT_TIMEOUT_S)) == -signal.SIGABRT
    assert "in block_the_hub" in agent.log
    bastion.agents.remove(agent)


def test_started_agent_collects_garbage_without_the_objects_of_its_start(bastion: Bastion) -> None:
    agent = bastion.start({"echo": ANY}, program=REPORTING_GARBAGE)
    assert agent.stop() == 0
    assert "garbage: True True" in agent.log


def test_sighup_during_the_start_does_not_end_the_agent(bastion: Bastion) -> None:
    agent = bastion.launch({"echo": ANY})
    wait_until(lambda: _ignores(agent.pid, signal.SIGHUP), what="the command has begun")
    agent.signal(signal.SIGHUP)
    agent.wait_for("agent.started")


def _ignores(pid: int, number: signal.Signals) -> bool:
    """Return whether a process ignores or catches a signal."""
    masks = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return bool((int(masks["SigIgn"], 16) | int(masks["SigCgt"], 16)) >> (number - 1) & 1)
