"""The Debian package on a host without a package index."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.booted.host import AGENT_TOML, BUSY, ECHO, UNIT, Host
from tests.support.load.pump import Pump
from tests.support.load.steady_load import Load

PACKAGE = "/root/pomagent.deb"


def test_fresh_package_reports_the_missing_routes_and_stays_down(host: Host) -> None:
    assert host.systemctl("enable", "--now", UNIT, check=False).returncode != 0
    assert (host.shown("ExecMainStatus"), host.shown("NRestarts")) == ("78", "0")
    assert "has no [[routes]]" in host.status


@pytest.mark.usefixtures("alone")
def test_newer_package_takes_over_and_open_sessions_go_on(
    host: Host, previous: Path, record_property: Callable[[str, object], None]
) -> None:
    host.machine.path("/root/previous.deb").write_bytes(previous.read_bytes())
    host.machine.run("dpkg", "--install", "/root/previous.deb")
    host.start(BUSY)
    before = host.main_pid
    with Pump(ECHO, 1) as pump, Load(ECHO) as load:
        host.machine.run("dpkg", "--install", PACKAGE)
        load.go_on()
        pump.go_on()
        assert host.main_pid not in (0, before)
        assert [event["pid"] for event in host.events("agent.upgraded")] == [host.main_pid]
        assert not host.events("agent.stopped")
        pump.go_on()
    assert (load.refused, load.lost) == ([], [])
    record_property("next package, connections", load.count)
    record_property("next package, longest wait in ms", load.longest_wait_ms)


@pytest.mark.one_suite
def test_old_version_keeps_serving_when_the_new_one_does_not_start(host: Host) -> None:
    host.start()
    before = host.main_pid
    host.save_text(host.machine.path(AGENT_TOML).read_text() + "nonsense = 1\n")
    output = host.machine.run("dpkg", "--install", PACKAGE).stderr
    assert "the old version goes on" in output
    assert (host.main_pid, host.shown("ActiveState")) == (before, "active")


@pytest.mark.one_suite
def test_agent_without_a_control_socket_is_restarted_without_refusing_clients(host: Host) -> None:
    host.start()
    before = host.main_pid
    host.machine.path("/run/pomagent/control.sock").unlink()
    with Load(ECHO) as load:
        host.machine.run("dpkg", "--install", PACKAGE)
        load.go_on()
    assert host.main_pid not in (0, before)
    assert (load.refused, load.lost) == ([], [])


def test_newer_package_leaves_a_stopped_agent_stopped(host: Host) -> None:
    host.start()
    host.systemctl("stop", UNIT)
    host.machine.run("dpkg", "--install", PACKAGE)
    assert host.shown("ActiveState") == "inactive"


def test_purge_removes_the_unit_the_program_and_the_configuration(host: Host) -> None:
    host.start()
    host.machine.run("dpkg", "--purge", "pomagent")
    assert host.shown("LoadState") == "not-found"
    assert list(host.machine.path("/etc/systemd/system/multi-user.target.wants").glob("pomagent*")) == []
    assert not host.machine.path("/opt/pomagent").exists()
    assert not host.machine.path("/etc/pomagent/agent.toml").exists()
