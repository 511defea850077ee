"""What the tests of the real process share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bastion import Bastion
from tests.gateway.facade import Gateway


@pytest.fixture
def bastion(gateway: Gateway, tmp_path: Path) -> Iterator[Bastion]:
    """A bastion host for the shared gateway; its agents are stopped, and looked at, after the test."""
    here = Bastion(gateway, tmp_path)
    try:
        yield here
        here.stop()
    finally:
        here.kill()
