"""The Debian package, installed where no package index can be reached."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.booted.host import AGENT_TOML, BUSY, ECHO, UNIT, Host
from tests.support.load.pump import Pump
from tests.support.load.steady_load import Load

PACKAGE = "/root/pomagent.deb"


def test_a_fresh_package_says_that_it_needs_a_route_and_does_not_try_again(host: Host) -> None:
    assert host.systemctl("enable", "--now", UNIT, check=False).returncode != 0
    assert (host.shown("ExecMainStatus"), host.shown("NRestarts")) == ("78", "0")
    assert "has no [[routes]]" in host.status


@pytest.mark.usefixtures("alone")
def test_the_next_version_takes_over_and_open_sessions_go_on(
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
def test_a_version_that_does_not_serve_leaves_the_old_one_at_work(host: Host) -> None:
    host.start()
    before = host.main_pid
    host.save_text(host.machine.path(AGENT_TOML).read_text() + "nonsense = 1\n")
    said = host.machine.run("dpkg", "--install", PACKAGE).stderr
    assert "the old version goes on" in said
    assert (host.main_pid, host.shown("ActiveState")) == (before, "active")


@pytest.mark.one_suite
def test_an_agent_that_cannot_be_asked_is_restarted_and_nobody_is_refused(host: Host) -> None:
    host.start()
    before = host.main_pid
    host.machine.path("/run/pomagent/control.sock").unlink()
    with Load(ECHO) as load:
        host.machine.run("dpkg", "--install", PACKAGE)
        load.go_on()
    assert host.main_pid not in (0, before)
    assert (load.refused, load.lost) == ([], [])


def test_another_package_starts_no_agent_that_does_not_run(host: Host) -> None:
    host.start()
    host.systemctl("stop", UNIT)
    host.machine.run("dpkg", "--install", PACKAGE)
    assert host.shown("ActiveState") == "inactive"


def test_a_purge_leaves_nothing_of_the_package(host: Host) -> None:
    host.start()
    host.machine.run("dpkg", "--purge", "pomagent")
    assert host.shown("LoadState") == "not-found"
    assert list(host.machine.path("/etc/systemd/system/multi-user.target.wants").glob("pomagent*")) == []
    assert not host.machine.path("/opt/pomagent").exists()
    assert not host.machine.path("/etc/pomagent/agent.toml").exists()
