"""The Debian package, installed where no package index can be reached."""

from tests.booted.host import UNIT, Host


def test_a_fresh_package_says_that_it_needs_a_route_and_does_not_try_again(host: Host) -> None:
    assert host.systemctl("enable", "--now", UNIT, check=False).returncode != 0
    assert (host.shown("ExecMainStatus"), host.shown("NRestarts")) == ("78", "0")
    assert "has no [[routes]]" in host.status


def test_a_purge_leaves_nothing_of_the_package(host: Host) -> None:
    host.machine.run("dpkg", "--purge", "pomagent")
    assert not host.machine.path("/opt/pomagent").exists()
    assert not host.machine.path("/etc/pomagent/agent.toml").exists()
