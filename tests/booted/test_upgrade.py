"""``pomagent upgrade`` under a booted systemd: another main process, without an interruption."""

from collections.abc import Callable

import pytest

from tests.booted.host import AGENT_TOML, BUSY, ECHO, UNIT, Host
from tests.gateway.waiting import wait_until
from tests.support.agent.agent_process import connect, read_to_end
from tests.support.agent.bastion import on, say
from tests.support.load.pump import Pump
from tests.support.load.steady_load import Load

WATCHDOG = "[Service]\nWatchdogSec=3\n"
Record = Callable[[str, object], None]


def others(host: Host, *pids: int) -> set[int]:
    """Return the PIDs of agents besides these."""
    listed = host.machine.run("sh", "-c", "pgrep --full 'pomagent run' || true").stdout.split()
    return set(map(int, listed)) - set(pids)


@pytest.mark.usefixtures("alone")
def test_upgrade_refuses_no_connection_and_open_sessions_go_on(host: Host, record_property: Record) -> None:
    host.drop_in(WATCHDOG)
    host.start(BUSY)
    before = host.main_pid
    with Pump(ECHO, 1) as pump, Load(ECHO) as load:
        load.go_on()
        host.pomagent("upgrade")
        load.go_on()
        after = host.main_pid
        assert after not in (0, before)
        pump.go_on()
        fed = host.shown("WatchdogTimestampMonotonic")
        for _ in range(3):  # fed by the new process, for longer than the watchdog waits
            fed = wait_until(lambda old=fed: _later(host, old), 20, "the watchdog is fed")
        pump.go_on()
    assert (load.refused, load.lost) == ([], [])
    assert (host.shown("ActiveState"), host.shown("NRestarts"), host.main_pid) == ("active", "0", after)
    record_property("upgrade, connections", load.count)
    record_property("upgrade, longest wait in ms", load.longest_wait_ms)


@pytest.mark.one_suite
def test_restart_after_an_upgrade_refuses_no_connection(host: Host) -> None:
    host.start(BUSY)
    host.pomagent("upgrade")
    upgraded = host.main_pid
    with Load(ECHO) as load:
        host.systemctl("restart", UNIT)
        load.go_on()
    assert host.main_pid not in (0, upgraded)
    assert (load.refused, load.lost) == ([], [])


def test_stop_lets_sessions_of_the_old_process_finish_within_the_drain(host: Host) -> None:
    host.start({"echo": on(ECHO), "answer": on(5432)}, drain={"timeout_s": 5})
    old = host.main_pid
    with connect(ECHO) as stays, connect(5432) as finishes:
        say(stays)
        finishes.sendall(b"2000 done\n")
        host.pomagent("upgrade")
        assert host.main_pid != old
        host.systemctl("stop", UNIT)
        assert read_to_end(finishes) == b"done\n"
    assert [event["reason"] for event in host.events("session.closed", route="echo")] == ["drained"]
    assert (host.shown("Result"), host.shown("ExecMainStatus")) == ("success", "0")
    assert others(host) == set()


@pytest.mark.one_suite
def test_killed_agent_is_restarted_after_an_upgrade(host: Host) -> None:
    host.start()
    host.pomagent("upgrade")
    upgraded = host.main_pid
    with Load(ECHO) as load:
        host.kill("KILL", upgraded)
        wait_until(lambda: host.main_pid not in (0, upgraded), 20, "another main process")
        load.go_on()
    assert load.refused == []
    assert host.shown("ActiveState") == "active"


@pytest.mark.one_suite
def test_upgrade_with_an_invalid_file_changes_nothing(host: Host) -> None:
    host.start()
    before = host.main_pid
    host.save_text(host.machine.path(AGENT_TOML).read_text() + "nonsense = 1\n")
    done = host.pomagent("upgrade", check=False)
    assert (done.returncode, "nonsense" in done.stderr) == (78, True)
    assert (host.main_pid, host.shown("ActiveState")) == (before, "active")
    wait_until(lambda: others(host, before) == set(), 20, "the new process is gone")
    with connect(ECHO) as client:
        assert say(client) == b"hello\n"


def _later(host: Host, old: str) -> str:
    new = host.shown("WatchdogTimestampMonotonic")
    return new if new != old else ""
