"""What tests over real sockets share."""

from collections.abc import Iterator

import pytest

from tests.fakes.gateway import FakeGateway
from tests.gateway.certificates import Authority
from tests.support.inspection.leaks import nothing_left_behind


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fails a test that leaves a socket, a greenlet or a thread behind in this process."""
    with nothing_left_behind():
        yield


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def fake(no_leaks: None, authority: Authority) -> Iterator[FakeGateway]:
    """A gateway that the test plays."""
    with FakeGateway(authority) as running:
        yield running


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority that no client trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")
