"""The Debian package, installed where no package index can be reached."""

from pathlib import Path

import pytest

from tests.booted.machine import Machine


@pytest.fixture
def host(packages: dict[str, Path], machine: Machine) -> Machine:
    """A machine with the package installed."""
    release = machine.run("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME").stdout.strip()
    machine.path("/root/pomagent.deb").write_bytes(packages[release].read_bytes())
    machine.run("dpkg", "--install", "/root/pomagent.deb")
    return machine


def test_a_fresh_package_says_that_it_needs_a_route_and_does_not_try_again(host):
    assert host.run("systemctl", "enable", "--now", "pomagent", check=False).returncode != 0
    shown = host.run("systemctl", "show", "pomagent", "--property=ExecMainStatus,NRestarts").stdout.splitlines()
    assert set(shown) == {"ExecMainStatus=78", "NRestarts=0"}
    assert "has no [[routes]]" in host.run("systemctl", "status", "pomagent", check=False).stdout


def test_an_enabled_agent_runs_is_ready_and_comes_back_with_the_host(host):
    host.write("/etc/pomagent/agent.toml", "[agent]\nallow_empty = true\n")
    host.run("systemctl", "enable", "--now", "pomagent")
    host.run("systemctl", "reload", "pomagent")
    host.reboot()
    assert host.run("systemctl", "is-active", "pomagent").stdout == "active\n"


def test_a_rejected_file_fails_the_reload_and_leaves_the_unit_active(host):
    host.write("/etc/pomagent/agent.toml", "[agent]\nallow_empty = true\n")
    host.run("systemctl", "enable", "--now", "pomagent")
    host.write("/etc/pomagent/agent.toml", "[agent]\nwrong = 1\n")
    assert host.run("systemctl", "reload", "pomagent", check=False).returncode != 0
    assert host.run("systemctl", "is-active", "pomagent").stdout == "active\n"


def test_a_purge_leaves_nothing_of_the_package(host):
    host.run("dpkg", "--purge", "pomagent")
    assert not host.path("/opt/pomagent").exists()
    assert not host.path("/etc/pomagent/agent.toml").exists()
