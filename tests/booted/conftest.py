"""Fixtures: a booted Debian of each release, on a network of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.booted.machine import Machine
from tests.booted.network import lonely_network
from tests.booted.trees import BUILD_TIMEOUT_S, SUITES, tree

HERE = Path(__file__).parent


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
def lonely(trees: dict[str, Path]) -> Iterator[None]:
    with lonely_network():
        yield


@pytest.fixture(params=SUITES)
def machine(request: pytest.FixtureRequest, trees: dict[str, Path], lonely: None, tmp_path: Path) -> Iterator[Machine]:
    """A machine of each release, freshly booted."""
    with Machine(tmp_path / "machine", trees[request.param]) as booted:
        yield booted
