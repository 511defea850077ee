"""The Debian package, installed where no package index can be reached."""

from tests.booted.host import ECHO, UNIT, Host
from tests.booted.load import Load


def test_a_fresh_package_says_that_it_needs_a_route_and_does_not_try_again(host: Host) -> None:
    assert host.systemctl("enable", "--now", UNIT, check=False).returncode != 0
    assert (host.shown("ExecMainStatus"), host.shown("NRestarts")) == ("78", "0")
    assert "has no [[routes]]" in host.status


def test_another_package_is_at_work_at_once_and_nobody_is_refused(host: Host) -> None:
    host.start()
    before = host.main_pid
    with Load(ECHO) as load:
        host.machine.run("dpkg", "--install", "/root/pomagent.deb")
        load.go_on()
    assert host.main_pid not in (0, before)
    assert (load.refused, load.lost) == ([], [])


def test_another_package_starts_no_agent_that_does_not_run(host: Host) -> None:
    host.start()
    host.systemctl("stop", UNIT)
    host.machine.run("dpkg", "--install", "/root/pomagent.deb")
    assert host.shown("ActiveState") == "inactive"


def test_a_purge_leaves_nothing_of_the_package(host: Host) -> None:
    host.start()
    host.machine.run("dpkg", "--purge", "pomagent")
    assert host.shown("LoadState") == "not-found"
    assert list(host.machine.path("/etc/systemd/system/multi-user.target.wants").glob("pomagent*")) == []
    assert not host.machine.path("/opt/pomagent").exists()
    assert not host.machine.path("/etc/pomagent/agent.toml").exists()
