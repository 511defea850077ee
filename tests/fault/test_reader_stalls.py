"""A client that reads nothing for a minute loses no byte, whether its destination ended meanwhile or not."""

import hashlib

import pytest

from tests.fault.conftest import SIZES, StalledDownloads
from tests.gateway.destinations import sha256_of
from tests.support.agent.agent_process import read_to_end

STALL_S = 65


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SIZES)
def test_client_that_stalls_for_a_minute_loses_no_byte(stalled_downloads: StalledDownloads, seed: int) -> None:
    stalled_downloads.stall_for(STALL_S)
    assert not stalled_downloads.agent.events("session.closed", reason="lost")
    body = read_to_end(stalled_downloads.clients[seed])
    assert hashlib.sha256(body).hexdigest() == sha256_of(seed, SIZES[seed])
    stalled_downloads.agent.wait_for("session.closed", bytes_down=SIZES[seed], side="gateway", reason="finished")
