"""A fetcher reads a credential's source and remembers a failure."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from pomagent.credentials.fetch import RETRY_S, TokenFetcher
from pomagent.errors import CredentialError
from pomagent.log import events
from tests.fakes.clock import FakeClock
from tests.fakes.log import FakeLog
from tests.unit.credentials.tokens import MINT, NEW, Mint


class Scene:
    """A fetcher with a source that returns the given results."""

    def __init__(self, *results: SecretStr | Exception) -> None:
        self.mint = Mint(*results)
        self.log = FakeLog()
        self.clock = FakeClock(1_000_000.0)
        self.fetcher = TokenFetcher(self.mint.read, self.log.log, self.clock)

    def fetch(self) -> SecretStr:
        return self.fetcher.fetch(MINT)

    def fail(self, match: str = "no vault") -> None:
        with pytest.raises(CredentialError, match=match):
            self.fetch()


def test_a_failed_source_is_not_read_by_every_dial() -> None:
    scene = Scene(CredentialError("no vault"), NEW)
    for _ in range(3):
        scene.fail()
    assert scene.mint.read_count == 1
    scene.clock.advance(RETRY_S)
    assert scene.fetch() == NEW
    assert scene.fetcher.problem == ""


def test_a_repaired_source_is_read_at_once_after_a_retry() -> None:
    scene = Scene(CredentialError("no vault"), NEW)
    scene.fail()
    scene.fetcher.forget_failure()
    assert scene.fetch() == NEW


def test_a_bug_in_a_source_is_not_met_by_every_dial() -> None:
    scene = Scene(LookupError("a bug"), NEW)
    with pytest.raises(LookupError):
        scene.fetch()
    scene.fail("met a bug of the agent")
    scene.clock.advance(RETRY_S)
    assert scene.fetch() == NEW
    assert scene.fetcher.problem == ""


def test_a_lasting_failure_is_logged_once() -> None:
    scene = Scene(CredentialError("no vault"), CredentialError("no vault"), CredentialError("sealed"))
    for cause in ("no vault", "no vault", "sealed"):
        scene.fail(cause)
        scene.clock.advance(RETRY_S)
    assert [line["error"] for line in scene.log.named(events.CREDENTIAL_REJECTED)] == ["no vault", "sealed"]


def test_a_clock_set_back_does_not_prolong_a_failure() -> None:
    scene = Scene(CredentialError("no network yet"), NEW)
    scene.fail("no network yet")
    scene.clock.advance(-3600.0)  # by NTP, once there is a network
    assert scene.fetch() == NEW


def test_each_completed_read_is_counted() -> None:
    scene = Scene(CredentialError("no vault"), NEW)
    scene.fail()
    scene.fail()  # remembered, not read
    scene.clock.advance(RETRY_S)
    scene.fetch()
    assert scene.fetcher.count == 2
