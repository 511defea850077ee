"""One token for all routes that share a credential; only a better one replaces it."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import gevent
import pytest
from gevent.event import AsyncResult
from pydantic import SecretStr

from pomagent.credentials.expiry import LEAST_WAIT_S, SHORT_MARGIN_S
from pomagent.credentials.token import RETRY_S, Token, header
from pomagent.errors import CredentialError
from pomagent.log import events
from pomagent.settings import Credential
from tests.fakes.clock import FakeClock
from tests.fakes.greenlets import caught_crashes, settle
from tests.fakes.log import FakeLog
from tests.gateway.waiting import wait_until

OLD, NEW = SecretStr("eyJ-old-S3CR3T"), SecretStr("eyJ-new-S3CR3T")
CREDENTIAL = Credential("ops", "service_account_file", Path("/etc/pomagent/ops.jwt"), token=OLD)


class Source:
    """A file that the test answers for, each reading by hand."""

    def __init__(self) -> None:
        self.readings: list[AsyncResult] = []

    def read(self, credential: Credential) -> SecretStr:
        assert credential is CREDENTIAL
        self.readings.append(AsyncResult())
        token: SecretStr = self.readings[-1].get()
        return token


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def fake_log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def token(source, fake_log) -> Token:
    return Token(CREDENTIAL, source.read, fake_log.log)


def rereading(token: Token, refused: SecretStr | None = OLD) -> gevent.Greenlet:
    greenlet = gevent.spawn(token.reread, refused)
    settle()
    return greenlet


def test_a_token_begins_as_it_was_read_with_the_settings(token, source):
    assert token.value == OLD
    assert source.readings == []


def test_a_refused_token_is_replaced_by_what_the_source_has_now(token, source, fake_log):
    asking = rereading(token)
    source.readings[0].set(NEW)
    asking.join()
    assert asking.value is True
    assert token.value == NEW
    assert fake_log.events == [events.CREDENTIAL_REFRESHED]
    assert (fake_log.lines[0]["credential"], fake_log.lines[0]["source"]) == ("ops", "service_account_file")


def test_a_source_without_anything_new_is_no_help(token, source, fake_log):
    asking = rereading(token)
    source.readings[0].set(SecretStr(OLD.get_secret_value()))
    asking.join()
    assert asking.value is False
    assert fake_log.events == []


def test_a_failed_reading_keeps_the_token(token, source, fake_log):
    asking = rereading(token)
    source.readings[0].set_exception(CredentialError("/etc/pomagent/ops.jwt cannot be read: No such file or directory"))
    asking.join()
    assert asking.value is False
    assert token.value == OLD
    assert [(line["event"], line["level"]) for line in fake_log.lines] == [(events.CREDENTIAL_REJECTED, "error")]
    assert "No such file" in fake_log.lines[0]["error"]


def test_a_token_that_was_replaced_meanwhile_needs_no_reading(token, source):
    token.value = NEW
    asking = rereading(token)
    assert asking.value is True
    assert source.readings == []


def test_a_refusal_without_a_token_is_a_reason_to_read(source, fake_log):
    token = Token(CREDENTIAL, source.read, fake_log.log)
    token.value = None
    asking = rereading(token, refused=None)
    source.readings[0].set(NEW)
    asking.join()
    assert (asking.value, token.value) == (True, NEW)


class TestSingleFlight:
    def test_one_reading_that_helps_serves_all_who_wait(self, token, source):
        asking = [rereading(token) for _ in range(3)]
        assert len(source.readings) == 1
        source.readings[0].set(NEW)
        gevent.joinall(asking)
        assert [greenlet.value for greenlet in asking] == [True, True, True]
        assert len(source.readings) == 1

    @pytest.mark.parametrize("same", [True, False], ids=["the same token", "an error"])
    def test_one_reading_that_does_not_help_serves_all_who_wait(self, token, source, same):
        asking = [rereading(token) for _ in range(3)]
        if same:
            source.readings[0].set(OLD)
        else:
            source.readings[0].set_exception(CredentialError("no"))
        gevent.joinall(asking)
        assert [greenlet.value for greenlet in asking] == [False, False, False]
        assert len(source.readings) == 1

    def test_who_asks_later_has_it_read_again(self, token, source):
        first = rereading(token)
        source.readings[0].set(OLD)
        first.join()
        second = rereading(token)
        source.readings[1].set(NEW)
        second.join()
        assert second.value is True

    def test_if_the_reader_is_killed_the_next_one_reads(self, token, source):
        first, second = rereading(token), rereading(token)
        first.kill()
        settle()
        source.readings[1].set(NEW)
        second.join()
        assert second.value is True
        assert token.value == NEW


@pytest.mark.parametrize(
    ("name", "scheme", "expected"),
    [
        ("authorization", "pomerium", {"authorization": "Pomerium eyJ.a.b"}),
        ("x-pomerium-authorization", "pomerium", {"x-pomerium-authorization": "eyJ.a.b"}),
        ("authorization", "bearer", {"authorization": "Bearer eyJ.a.b"}),
    ],
    ids=["form 6", "form 5", "form 1"],
)
def test_the_header_has_the_form_that_the_gateway_reads(name, scheme, expected):
    assert header(name, scheme, SecretStr("eyJ.a.b")) == expected


# --- tokens that are asked for, and that end --------------------------------------------------------------------------

MINT = Credential("ops", "command", command=("mint",))


def jwt(expires_at: float, name: str = "a") -> SecretStr:
    body = base64.urlsafe_b64encode(json.dumps({"exp": expires_at, "jti": name}).encode()).decode().rstrip("=")
    return SecretStr(f"header.{body}.signature")


class Mint:
    """Gives what the test has put there; an error is raised."""

    def __init__(self, *results: SecretStr | CredentialError) -> None:
        self.results = list(results)
        self.runs = 0

    def read(self, _: Credential) -> SecretStr:
        self.runs += 1
        result = self.results.pop(0)
        if isinstance(result, CredentialError):
            raise result
        return result


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000_000.0)


def test_a_token_that_nobody_has_read_is_obtained_once(clock, fake_log):
    mint = Mint(NEW)
    token = Token(MINT, mint.read, fake_log.log, clock=clock)
    both = [gevent.spawn(token.obtain), gevent.spawn(token.obtain)]
    gevent.joinall(both)
    assert [each.value for each in both] == [NEW, NEW]
    assert mint.runs == 1


def test_a_source_that_fails_is_not_asked_by_every_dial(clock, fake_log):
    mint = Mint(CredentialError("no vault"), NEW)
    token = Token(MINT, mint.read, fake_log.log, clock=clock)
    for _ in range(3):
        with pytest.raises(CredentialError, match="no vault"):
            token.obtain()
    assert mint.runs == 1
    clock.advance(RETRY_S)
    assert token.obtain() == NEW
    assert token.problem == ""


def test_a_source_that_has_been_mended_is_asked_at_once(clock, fake_log):
    mint = Mint(CredentialError("no vault"), NEW)
    token = Token(MINT, mint.read, fake_log.log, clock=clock)
    with pytest.raises(CredentialError):
        token.obtain()
    token.retry()
    assert token.obtain() == NEW


def test_a_fresh_token_that_is_refused_does_not_run_the_command_again_and_again(clock, fake_log):
    mint = Mint(OLD, NEW)
    token = Token(MINT, mint.read, fake_log.log, clock=clock)
    token.obtain()
    assert token.reread(OLD) is False
    assert mint.runs == 1
    clock.advance(LEAST_WAIT_S)
    assert token.reread(OLD) is True
    assert token.value == NEW


def test_who_uses_a_token_is_told_when_another_takes_its_place(fake_log):
    told: list[Credential] = []
    token = Token(CREDENTIAL, Mint().read, fake_log.log, told.append)
    token.replace(OLD)
    assert told == []
    token.replace(NEW)
    assert told == [CREDENTIAL]


def test_the_first_token_replaces_nothing(fake_log):
    told: list[Credential] = []
    token = Token(MINT, Mint(NEW).read, fake_log.log, told.append)
    token.obtain()
    assert told == []


def test_a_command_is_run_again_before_its_token_ends(clock, fake_log):
    mint = Mint(jwt(clock() + 1000), jwt(clock() + 9000, "b"))
    token = Token(MINT, mint.read, fake_log.log, clock=clock)
    token.obtain()
    assert token.is_due is False
    clock.advance(1000 - SHORT_MARGIN_S)
    assert token.is_due is True
    token.refresh()
    assert token.life.expires_at == 1_009_000
    assert token.is_due is False


def test_a_failed_refresh_keeps_the_good_token_and_comes_again_later(clock, fake_log):
    first = jwt(clock() + 1000)
    mint = Mint(first, CredentialError("no vault"), NEW)
    token = Token(MINT, mint.read, fake_log.log, clock=clock)
    token.obtain()
    clock.advance(900)
    token.refresh()
    assert token.value == first
    assert token.problem == "no vault"
    assert token.is_due is False
    clock.advance(LEAST_WAIT_S)
    assert token.is_due is True


def test_each_step_of_the_ladder_is_one_line(clock, fake_log):
    day = 86_400
    token = Token(CREDENTIAL, Mint().read, fake_log.log, clock=clock)
    token.replace(jwt(clock() + 8 * day))
    seen = []
    for step in (0, day, day, 5 * day, day - 3600, 3599, 1, day):
        clock.advance(step)
        before = len(fake_log.lines)
        token.warn()
        seen.append([line["level"] for line in fake_log.lines[before:]])
    assert seen == [[], ["warning"], [], ["warning"], ["warning"], [], ["error"], []]
    assert {line["event"] for line in fake_log.lines[1:]} == {events.CREDENTIAL_EXPIRING}


def test_an_expired_token_is_still_used(clock, fake_log):
    expired = jwt(clock() - 5)
    token = Token(Credential("ops", "env", variable="T", token=expired), Mint().read, fake_log.log, clock=clock)
    assert token.obtain() == expired


def test_the_keeper_refreshes_by_itself(fake_log):
    mint = Mint(jwt(time.time() - 100), NEW)
    token = Token(MINT, mint.read, fake_log.log)
    token.obtain()
    token._got_at -= LEAST_WAIT_S
    token.start()
    try:
        wait_until(lambda: token.value == NEW)
    finally:
        token.close()


def test_a_source_that_works_again_is_well_again_even_with_the_same_token(clock, fake_log):
    mint = Mint(NEW, CredentialError("no vault"), NEW)
    token = Token(MINT, mint.read, fake_log.log, clock=clock)
    token.obtain()
    clock.advance(LEAST_WAIT_S)
    assert token.reread(NEW) is False
    assert token.problem == "no vault"
    clock.advance(LEAST_WAIT_S)
    assert token.reread(NEW) is False
    assert token.problem == ""


def test_a_bug_in_a_source_is_not_met_by_every_dial(clock, fake_log):
    results = [LookupError("a bug"), NEW]

    def read(_: Credential) -> SecretStr:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    token = Token(MINT, read, fake_log.log, clock=clock)
    with pytest.raises(LookupError):
        token.obtain()
    with pytest.raises(CredentialError, match="met a bug of the agent"):
        token.obtain()
    clock.advance(RETRY_S)
    assert token.obtain() == NEW
    assert token.problem == ""


def test_a_source_that_goes_on_failing_in_the_same_way_is_told_once(clock, fake_log):
    mint = Mint(CredentialError("no vault"), CredentialError("no vault"), CredentialError("sealed"))
    token = Token(MINT, mint.read, fake_log.log, clock=clock)
    for _ in range(3):
        with pytest.raises(CredentialError):
            token.obtain()
        clock.advance(RETRY_S)
    assert [line["error"] for line in fake_log.named(events.CREDENTIAL_REJECTED)] == ["no vault", "sealed"]


def test_a_clock_that_is_set_back_makes_nobody_wait_for_the_time_to_come_again(clock, fake_log):
    mint = Mint(CredentialError("no network yet"), OLD, NEW)
    token = Token(MINT, mint.read, fake_log.log, clock=clock)
    with pytest.raises(CredentialError, match="no network yet"):
        token.obtain()
    clock.advance(-3600.0)  # by NTP, once there is a network
    assert token.obtain() == OLD
    clock.advance(-3600.0)
    assert token.reread(OLD)
    assert token.value == NEW


def test_a_bug_in_a_source_costs_one_refresh_and_not_all(fake_log):
    results = [LookupError("a bug"), NEW]

    def read(_: Credential) -> SecretStr:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    token = Token(MINT, read, fake_log.log)
    token.replace(jwt(time.time() - 100))
    token._got_at -= LEAST_WAIT_S
    with caught_crashes() as crashes:
        token.start()
        try:
            wait_until(lambda: crashes)
            assert token._refresh_at() > time.time() + LEAST_WAIT_S / 2  # not at once, in a tight loop
            token._failed_at -= LEAST_WAIT_S
            token._changed.set()
            wait_until(lambda: token.value == NEW)
        finally:
            token.close()
    assert len(crashes) == 1
