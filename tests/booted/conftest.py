"""Fixtures for booted machines: one Debian per release with the agent installed, booted afresh for each test."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.booted.host import Host
from tests.booted.machine import Machine
from tests.booted.network import WayOut, lonely_network
from tests.booted.package import build, build_previous, install
from tests.booted.trees import BUILD_TIMEOUT_S, SUITES, cache, lock, tree
from tests.gateway.facade import Gateway

PROGRAMS = ("debootstrap", "systemd-nspawn", "nsenter", "unshare", "ip", "dpkg-deb")
OLDEST = SUITES[0]
EVERY_SUITE = "POMAGENT_TEST_EVERY_SUITE"
MACHINES = "machines.lock"
"""Lock that is held while a machine runs: shared, or exclusively by a test that measures."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Raise the timeout: on a new host the first of these tests waits for debootstrap."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(len(SUITES) * BUILD_TIMEOUT_S))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on every release, but one marked ``one_suite`` on the oldest, unless EVERY_SUITE is set."""
    if "suite" in metafunc.fixturenames:
        is_short = metafunc.definition.get_closest_marker("one_suite") and not os.environ.get(EVERY_SUITE)
        suites = [OLDEST] if is_short else SUITES
        metafunc.parametrize("suite", suites, indirect=True, scope="package")


@pytest.fixture(scope="package")
def suite(request: pytest.FixtureRequest) -> str:
    """The Debian release that is booted."""
    return str(request.param)


@pytest.fixture(scope="package")
def layers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, Path]]:
    """Return a bare Debian, our package and the previous package by release. Needs a network."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"to boot a Debian takes root and {' '.join(missing or PROGRAMS)}")
    base = tmp_path_factory.getbasetemp()
    packages = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "packages"  # shared by all workers
    return {
        suite: (tree(suite), build(suite, packages / suite), build_previous(suite, packages / f"{suite}-previous"))
        for suite in SUITES
    }


@pytest.fixture(scope="package")
def network(layers: dict[str, tuple[Path, Path, Path]]) -> Iterator[WayOut]:
    """A network with one loopback device, shared by the gateway, the machines and the clients."""
    with lonely_network() as way_out:
        yield way_out


@pytest.fixture(scope="package")
def booted_gateway(network: WayOut) -> Iterator[Gateway]:
    """A gateway in the network of the machines."""
    with Gateway() as running:
        yield running


@pytest.fixture(scope="package")
def installed(
    suite: str, layers: dict[str, tuple[Path, Path, Path]], network: WayOut, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ...]:
    """Return the layers of a machine with the agent installed and not enabled."""
    bare, package, _ = layers[suite]
    place = tmp_path_factory.mktemp(f"installed-{suite}")
    with lock(cache() / MACHINES, fcntl.LOCK_SH), Machine(place, bare) as machine:
        install(machine, package)
    return machine.layer, bare


@pytest.fixture
def previous(suite: str, layers: dict[str, tuple[Path, Path, Path]]) -> Path:
    """The package of the previous version."""
    return layers[suite][2]


@pytest.fixture
def turn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold the lock on machines, exclusively for a test that measures."""
    with lock(cache() / MACHINES, fcntl.LOCK_EX if "alone" in request.fixturenames else fcntl.LOCK_SH):
        yield


@pytest.fixture
def host(installed: tuple[Path, ...], booted_gateway: Gateway, tmp_path: Path, turn: None) -> Iterator[Host]:
    """A freshly booted host with a gateway, discarded after the test."""
    booted_gateway.recover()
    with Machine(tmp_path / "machine", *installed) as machine:
        yield Host(machine, booted_gateway)
    booted_gateway.recover()


@pytest.fixture
def alone() -> None:
    """Keep other workers from running a machine while this test measures."""
