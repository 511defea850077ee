"""A refresher fetches the next token in time, and warns before the present one expires."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pomagent.credentials.refresh_schedule import MIN_REFRESH_PAUSE_S, SHORT_MARGIN_S
from pomagent.credentials.token import Token
from pomagent.errors import CredentialError
from pomagent.log import events
from pomagent.settings import Credential
from tests.fakes.clock import FakeClock
from tests.fakes.greenlets import caught_crashes
from tests.fakes.log import FakeLog
from tests.gateway.waiting import wait_until
from tests.unit.credentials.tokens import MINT, NEW, Mint, jwt

FILE = Credential("ops", "service_account_file", Path("/etc/pomagent/ops.jwt"))


@pytest.fixture
def fake_log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000_000.0)


def test_a_command_is_run_again_before_its_token_expires(clock, fake_log):
    mint = Mint(jwt(clock() + 1000), jwt(clock() + 9000, "b"))
    token = Token(MINT, mint.read, fake_log.log, clock=clock)
    token.obtain()
    assert token.refresher.is_due is False
    clock.advance(1000 - SHORT_MARGIN_S)
    assert token.refresher.is_due is True
    token.refresh()
    assert token.life.expires_at == 1_009_000
    assert token.refresher.is_due is False


def test_a_failed_refresh_keeps_the_token_and_is_repeated_later(clock, fake_log):
    first = jwt(clock() + 1000)
    mint = Mint(first, CredentialError("no vault"), NEW)
    token = Token(MINT, mint.read, fake_log.log, clock=clock)
    token.obtain()
    clock.advance(900)
    token.refresh()
    assert token.value == first
    assert token.problem == "no vault"
    assert token.refresher.is_due is False
    clock.advance(MIN_REFRESH_PAUSE_S)
    assert token.refresher.is_due is True


def test_a_token_from_a_file_is_never_due(clock, fake_log):
    token = Token(FILE, Mint().read, fake_log.log, clock=clock)
    token.replace(jwt(clock() + 1000))
    clock.advance(2000)
    assert token.refresher.is_due is False


def test_each_step_before_the_expiry_is_logged_once(clock, fake_log):
    day = 86_400
    token = Token(FILE, Mint().read, fake_log.log, clock=clock)
    token.replace(jwt(clock() + 8 * day))
    levels = []
    for step in (0, day, day, 5 * day, day - 3600, 3599, 1, day):
        clock.advance(step)
        before = len(fake_log.lines)
        token.refresher.warn()
        levels.append([line["level"] for line in fake_log.lines[before:]])
    assert levels == [[], ["warning"], [], ["warning"], ["warning"], [], ["error"], []]
    assert {line["event"] for line in fake_log.lines[1:]} == {events.CREDENTIAL_EXPIRING}


def test_another_token_is_warned_of_again(clock, fake_log):
    token = Token(FILE, Mint().read, fake_log.log, clock=clock)
    for name in ("a", "b"):
        token.replace(jwt(clock() + 60, name))
        token.refresher.warn()
    assert len(fake_log.named(events.CREDENTIAL_EXPIRING)) == 2


def test_the_greenlet_refreshes_an_expired_token(fake_log):
    mint = Mint(jwt(time.time() - 100), NEW)
    token = Token(MINT, mint.read, fake_log.log)
    token.obtain()
    token.obtained_at -= MIN_REFRESH_PAUSE_S
    token.start()
    try:
        wait_until(lambda: token.value == NEW)
    finally:
        token.close()


def test_a_bug_in_a_source_costs_one_refresh(fake_log):
    token = Token(MINT, Mint(LookupError("a bug"), NEW).read, fake_log.log)
    token.replace(jwt(time.time() - 100))
    token.obtained_at -= MIN_REFRESH_PAUSE_S
    with caught_crashes() as crashes:
        token.start()
        try:
            wait_until(lambda: crashes)
            due_at = token.refresher.due_at
            assert due_at is not None
            assert due_at > time.time() + MIN_REFRESH_PAUSE_S / 2  # not at once, in a tight loop
            token.retry()
            token.refresher.token_changed()
            wait_until(lambda: token.value == NEW)
        finally:
            token.close()
    assert len(crashes) == 1
