"""All routes of a credential share one token, which only another token replaces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gevent
import pytest
from gevent.event import AsyncResult
from pydantic import SecretStr

from pomagent.credentials.refresh_schedule import MIN_REFRESH_PAUSE_S
from pomagent.credentials.token import Token
from pomagent.errors import CredentialError
from pomagent.log import events
from pomagent.settings import Credential
from tests.fakes.clock import FakeClock
from tests.fakes.greenlets import settle
from tests.fakes.log import FakeLog
from tests.unit.credentials.tokens import MINT, NEW, Mint, jwt

OLD = SecretStr("eyJ-old-S3CR3T")
CREDENTIAL = Credential("ops", "service_account_file", Path("/etc/pomagent/ops.jwt"), token=OLD)


class Source:
    """A source with reads that the test completes one by one."""

    def __init__(self) -> None:
        self.reads: list[AsyncResult] = []

    def read(self, credential: Credential) -> SecretStr:
        assert credential is CREDENTIAL
        self.reads.append(AsyncResult())
        token: SecretStr = self.reads[-1].get()
        return token


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def fake_log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000_000.0)


@pytest.fixture
def token(source, fake_log) -> Token:
    return Token(CREDENTIAL, source.read, fake_log.log)


def rereading(token: Token, refused: SecretStr | None = OLD) -> gevent.Greenlet:
    greenlet = gevent.spawn(token.reread, refused)
    settle()
    return greenlet


def test_the_first_token_is_the_one_of_the_settings(token, source):
    assert token.value == OLD
    assert source.reads == []


class TestRereading:
    def test_a_refused_token_is_replaced_by_the_current_one_of_the_source(self, token, source, fake_log):
        reread = rereading(token)
        source.reads[0].set(NEW)
        reread.join()
        assert reread.value is True
        assert token.value == NEW
        assert fake_log.events == [events.CREDENTIAL_REFRESHED]
        assert (fake_log.lines[0]["credential"], fake_log.lines[0]["source"]) == ("ops", "service_account_file")

    def test_an_unchanged_source_is_no_help(self, token, source, fake_log):
        reread = rereading(token)
        source.reads[0].set(SecretStr(OLD.get_secret_value()))
        reread.join()
        assert reread.value is False
        assert fake_log.events == []

    def test_a_failed_read_keeps_the_token(self, token, source, fake_log):
        reread = rereading(token)
        source.reads[0].set_exception(CredentialError("/etc/pomagent/ops.jwt cannot be read: No such file"))
        reread.join()
        assert reread.value is False
        assert token.value == OLD
        assert [(line["event"], line["level"]) for line in fake_log.lines] == [(events.CREDENTIAL_REJECTED, "error")]
        assert "No such file" in fake_log.lines[0]["error"]

    def test_a_token_replaced_meanwhile_needs_no_read(self, token, source):
        token.value = NEW
        reread = rereading(token)
        assert reread.value is True
        assert source.reads == []

    def test_a_refusal_without_a_token_causes_a_read(self, source, fake_log):
        token = Token(CREDENTIAL, source.read, fake_log.log)
        token.value = None
        reread = rereading(token, refused=None)
        source.reads[0].set(NEW)
        reread.join()
        assert (reread.value, token.value) == (True, NEW)

    def test_a_refused_fresh_token_does_not_run_the_command_again(self, clock, fake_log):
        mint = Mint(OLD, NEW)
        token = Token(MINT, mint.read, fake_log.log, clock=clock)
        token.obtain()
        assert token.reread(OLD) is False
        assert mint.read_count == 1
        clock.advance(MIN_REFRESH_PAUSE_S)
        assert token.reread(OLD) is True
        assert token.value == NEW

    def test_a_repaired_source_clears_the_problem_even_with_the_same_token(self, clock, fake_log):
        mint = Mint(NEW, CredentialError("no vault"), NEW)
        token = Token(MINT, mint.read, fake_log.log, clock=clock)
        token.obtain()
        clock.advance(MIN_REFRESH_PAUSE_S)
        assert token.reread(NEW) is False
        assert token.problem == "no vault"
        clock.advance(MIN_REFRESH_PAUSE_S)
        assert token.reread(NEW) is False
        assert token.problem == ""

    def test_a_clock_set_back_does_not_delay_a_read(self, clock, fake_log):
        token = Token(MINT, Mint(OLD, NEW).read, fake_log.log, clock=clock)
        token.obtain()
        clock.advance(-3600.0)  # by NTP, once there is a network
        assert token.reread(OLD)
        assert token.value == NEW


class TestSingleFlight:
    def test_one_successful_read_serves_all_concurrent_callers(self, token, source):
        rereads = [rereading(token) for _ in range(3)]
        assert len(source.reads) == 1
        source.reads[0].set(NEW)
        gevent.joinall(rereads)
        assert [greenlet.value for greenlet in rereads] == [True, True, True]
        assert len(source.reads) == 1

    @pytest.mark.parametrize("same", [True, False], ids=["the same token", "an error"])
    def test_one_useless_read_serves_all_concurrent_callers(self, token, source, same):
        rereads = [rereading(token) for _ in range(3)]
        if same:
            source.reads[0].set(OLD)
        else:
            source.reads[0].set_exception(CredentialError("no"))
        gevent.joinall(rereads)
        assert [greenlet.value for greenlet in rereads] == [False, False, False]
        assert len(source.reads) == 1

    def test_a_later_caller_causes_another_read(self, token, source):
        first = rereading(token)
        source.reads[0].set(OLD)
        first.join()
        second = rereading(token)
        source.reads[1].set(NEW)
        second.join()
        assert second.value is True

    def test_the_next_caller_reads_if_the_reader_is_killed(self, token, source):
        first, second = rereading(token), rereading(token)
        first.kill()
        settle()
        source.reads[1].set(NEW)
        second.join()
        assert second.value is True
        assert token.value == NEW

    def test_concurrent_first_uses_share_one_read(self, fake_log):
        mint = Mint(NEW)
        token = Token(MINT, mint.read, fake_log.log)
        both = [gevent.spawn(token.obtain), gevent.spawn(token.obtain)]
        gevent.joinall(both)
        assert [each.value for each in both] == [NEW, NEW]
        assert mint.read_count == 1


class TestReplacing:
    def test_the_change_of_a_used_token_is_reported(self, fake_log):
        changes: list[Credential] = []
        token = Token(CREDENTIAL, Mint().read, fake_log.log, changes.append)
        token.replace(OLD)
        assert changes == []
        token.replace(NEW)
        assert changes == [CREDENTIAL]

    def test_the_first_token_is_no_change(self, fake_log):
        changes: list[Credential] = []
        token = Token(MINT, Mint(NEW).read, fake_log.log, changes.append)
        token.obtain()
        assert changes == []

    def test_a_token_from_elsewhere_clears_the_problem(self, fake_log):
        token = Token(MINT, Mint(CredentialError("no vault")).read, fake_log.log)
        with pytest.raises(CredentialError):
            token.obtain()
        token.replace(NEW)
        assert (token.obtain(), token.problem) == (NEW, "")


def test_a_retry_reads_a_failed_source_at_once(clock, fake_log):
    token = Token(MINT, Mint(CredentialError("no vault"), NEW).read, fake_log.log, clock=clock)
    with pytest.raises(CredentialError):
        token.obtain()
    token.retry()
    assert token.obtain() == NEW


def test_an_expired_token_is_still_used(clock, fake_log):
    expired = jwt(clock() - 5)
    token = Token(Credential("ops", "env", variable="T", token=expired), Mint().read, fake_log.log, clock=clock)
    assert token.obtain() == expired


class TestStoredLogin:
    """A login is looked for before the first dial, because only a person can supply it."""

    LOGIN = Credential("people", "login")

    def started(self, mint: Mint, fake_log: FakeLog, credential: Credential = LOGIN) -> Token:
        token = Token(credential, mint.read, fake_log.log)
        token.start()
        settle()
        return token

    def test_stored_login_is_read_at_the_start(self, fake_log):
        token = self.started(Mint(NEW), fake_log)
        assert (token.value, token.problem) == (NEW, "")
        token.close()

    def test_lack_of_a_login_is_known_without_a_dial(self, fake_log):
        token = self.started(Mint(CredentialError("not logged in")), fake_log)
        assert (token.value, token.problem) == (None, "not logged in")
        token.close()

    def test_lack_of_a_login_is_known_after_it_was_forgotten(self, fake_log):
        mint = Mint(NEW, CredentialError("not logged in"))
        token = self.started(mint, fake_log)
        token.drop()
        settle()
        assert (token.value, token.problem, mint.read_count) == (None, "not logged in", 2)
        token.close()

    @pytest.mark.parametrize("credential", [MINT, replace(LOGIN, anonymous_first=True)], ids=lambda one: one.name)
    def test_other_tokens_are_read_when_they_are_needed(self, fake_log, credential):
        mint = Mint(NEW)
        token = self.started(mint, fake_log, credential)
        assert (token.value, mint.read_count) == (None, 0)
        token.close()
