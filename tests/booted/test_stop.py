"""Stops, and systemd's watchdog."""

from tests.booted.host import ECHO, UNIT, Host
from tests.gateway.waiting import wait_until
from tests.support.agent.agent_process import connect, read_to_end
from tests.support.agent.bastion import on, say

OTHER = 5432
SESSIONS = 20
WATCHDOG = "[Service]\nWatchdogSec=3\n"


def test_stop_lets_sessions_finish_and_resets_the_rest(host: Host) -> None:
    host.start({"echo": on(ECHO), "answer": on(OTHER)}, drain={"timeout_s": 4})
    stays = connect(ECHO)
    say(stays)
    finishing = [connect(OTHER) for _ in range(SESSIONS)]
    for client in finishing:
        client.sendall(b"1000 done\n")
    pid = host.main_pid
    host.systemctl("stop", UNIT)
    assert [read_to_end(client) for client in finishing] == [b"done\n"] * SESSIONS
    assert len(host.events("session.closed", route="answer", reason="finished")) == SESSIONS
    assert len(host.events("session.closed", route="echo", reason="drained")) == 1
    assert (host.shown("ExecMainPID"), host.shown("ExecMainStatus")) == (str(pid), "0")
    assert host.shown("Result") == "success"
    for client in (stays, *finishing):
        client.close()


def test_agent_extends_the_stop_timeout_of_its_unit(host: Host) -> None:
    host.drop_in("[Service]\nTimeoutStopSec=1\n")
    host.start({"answer": on(OTHER)}, drain={"timeout_s": 60})
    with connect(OTHER) as client:
        client.sendall(b"4000 done\n")
        host.wait_for("agent.started")
        host.systemctl("stop", UNIT)
        assert read_to_end(client) == b"done\n"
    assert host.shown("Result") == "success"


def test_second_sigterm_ends_the_drain_at_once(host: Host) -> None:
    host.start(drain={"timeout_s": 300})
    with connect(ECHO) as client:
        say(client)
        host.systemctl("stop", "--no-block", UNIT)
        host.wait_for("agent.draining", sessions_left=1)
        host.kill("TERM", host.main_pid)
        wait_until(lambda: host.shown("ActiveState") == "inactive", 20, "the agent has stopped")
    assert len(host.events("session.closed", reason="drained")) == 1
    assert host.shown("ExecMainStatus") == "0"


def test_watchdog_restarts_an_agent_that_hangs(host: Host) -> None:
    host.drop_in(WATCHDOG)
    host.start()
    before = host.main_pid
    host.kill("STOP", before)  # to systemd this looks like a blocked hub
    wait_until(lambda: host.main_pid not in (0, before), 30, "another main process")
    wait_until(lambda: host.shown("ActiveState") == "active", 20, "the agent serves")
    with connect(ECHO) as client:
        assert say(client) == b"hello\n"


def test_watchdog_is_fed_while_the_gateway_hangs(host: Host) -> None:
    host.drop_in(WATCHDOG)
    host.start()
    before = host.main_pid
    host.gateway.edge.pause()
    with connect(ECHO) as waiting:
        waiting.sendall(b"hello\n")
        fed = host.shown("WatchdogTimestampMonotonic")
        # Three times the watchdog's interval, with a client and a pool that make no progress.
        for _ in range(6):
            fed = wait_until(lambda old=fed: _later(host, old), 20, "the watchdog is fed")
    assert (host.main_pid, host.shown("NRestarts")) == (before, "0")


def _later(host: Host, old: str) -> str:
    new = host.shown("WatchdogTimestampMonotonic")
    return new if new != old else ""
