"""scripts/install on a booted host, without a package index and without python3-venv."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.deb_library import SUITES, Target
from tests.booted.host import ECHO, UNIT, Host
from tests.booted.machine import Machine
from tests.booted.network import WayOut
from tests.gateway.facade import Gateway
from tests.support.agent import processes, wheels
from tests.support.load.steady_load import Load

SOURCE = "/root/pomagent"
PARTS = ("pomagent", "scripts", "systemd", "man", "completions", "debian", "agent.toml", "pyproject.toml")
INSTALL_TIMEOUT_S = 240
pytestmark = pytest.mark.one_suite


@pytest.fixture(scope="package")
def archives(suite: str, network: WayOut, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of wheels for the release's Python."""
    architecture = processes.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout
    target = Target(SUITES[suite], architecture.strip(), "0")
    with network():
        return wheels.fill(tmp_path_factory.mktemp("wheels"), *target.pip_options)


@pytest.fixture
def bare_host(
    archives: Path, suite: str, layers: dict[str, tuple[Path, Path, Path]], booted_gateway: Gateway, tmp_path: Path,
    turn: None,
) -> Iterator[Machine]:  # fmt: skip
    """A machine with the source tree and the wheels."""
    with Machine(tmp_path / "machine", layers[suite][0]) as machine:
        for part in PARTS:
            _copy(wheels.ROOT / part, machine.path(SOURCE) / part)
        _copy(archives, machine.path("/root/wheels"))
        yield machine


def test_agent_is_installed_replaced_and_removed(bare_host: Machine, booted_gateway: Gateway) -> None:
    machine = bare_host
    _install(machine)
    host = Host(machine, booted_gateway)
    host.start()
    before = host.main_pid
    with Load(ECHO) as load:
        _install(machine)
        assert host.main_pid == before  # replaced only with --upgrade
        _install(machine, "--upgrade")
        load.go_on()
    assert host.main_pid not in (0, before)
    assert (load.refused, load.lost) == ([], [])

    machine.run(f"{SOURCE}/scripts/install", "--uninstall")
    assert host.shown("LoadState") == "not-found"
    assert not machine.path("/opt/pomagent").is_symlink()
    assert machine.path("/etc/pomagent/agent.toml").exists()
    assert "pomagent:" in machine.path("/etc/passwd").read_text()


def test_package_is_refused_over_an_installation_from_source(
    bare_host: Machine, layers: dict[str, tuple[Path, Path, Path]], suite: str
) -> None:
    _install(bare_host)
    bare_host.path("/root/pomagent.deb").write_bytes(layers[suite][1].read_bytes())
    done = bare_host.run("dpkg", "--install", "/root/pomagent.deb", check=False)
    assert done.returncode != 0
    assert "scripts/install --uninstall" in done.stderr
    assert bare_host.run("/usr/local/bin/pomagent", "--version").stdout.startswith("pomagent")
    assert "ExecStart=" in bare_host.run("systemctl", "cat", UNIT).stdout


def _install(machine: Machine, *options: str) -> None:
    command = [f"{SOURCE}/scripts/install", "--wheels", "/root/wheels", *options]
    machine.run(*command, timeout_s=INSTALL_TIMEOUT_S)


def _copy(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, place)
