"""Fixtures: a booted Debian of each release, on a network of its own."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.booted.machine import Machine
from tests.booted.network import lonely_network
from tests.booted.trees import BUILD_TIMEOUT_S, SUITES, tree
from tests.gateway.waiting import scaled

HERE = Path(__file__).parent
PACKAGE_TIMEOUT_S = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test may have to wait for the trees."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(2 * BUILD_TIMEOUT_S))


@pytest.fixture(scope="package")
def trees() -> dict[str, Path]:
    """The root of each release, made while there still is a network."""
    return {suite: tree(suite) for suite in SUITES}


@pytest.fixture(scope="package")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The package for each release, built while there still is a network."""
    return {suite: _build(suite, tmp_path_factory.mktemp(suite)) for suite in ("bookworm", "trixie")}


@pytest.fixture(scope="package")
def lonely(trees: dict[str, Path], packages: dict[str, Path]) -> Iterator[None]:
    with lonely_network():
        yield


@pytest.fixture(params=SUITES)
def machine(request: pytest.FixtureRequest, trees: dict[str, Path], lonely: None, tmp_path: Path) -> Iterator[Machine]:
    """A machine of each release, freshly booted."""
    with Machine(tmp_path / "machine", trees[request.param]) as booted:
        yield booted


def _build(suite: str, output: Path) -> Path:
    done = subprocess.run(
        [HERE.parents[1] / "scripts/build-deb", "--suite", suite, "--output", output],
        check=True, capture_output=True, text=True, timeout=scaled(PACKAGE_TIMEOUT_S),
    )  # fmt: skip
    return Path(done.stdout.splitlines()[-1])
