"""When a browser opens for ``pomagent tcp``, and when it must not."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from pomagent.credentials.login.cache import TokenCache
from pomagent.credentials.login.source import COOL_DOWN_S, FRESH_IS_REFUSED, FRESH_S, LoginSource
from pomagent.errors import CredentialError, GatewayUnreachable
from pomagent.settings import HostPort
from tests.fakes.clock import FakeClock
from tests.unit.credentials.login.test_cache import CLUSTER, DB, WEB, token

DOWN = GatewayUnreachable("refused", gateway="edge:443", destination="the login", phase="connect")


class FakeEdge:
    """A gateway that the test revokes tokens at, and a person who signs in at once."""

    def __init__(self) -> None:
        self.dead: list[SecretStr] = []
        self.logins = 0
        self.questions = 0
        self.error: Exception | None = None
        self.clock = FakeClock()

    def log_in(self) -> SecretStr:
        self.logins += 1
        if self.error:
            raise self.error
        return token(100 + self.logins)

    def is_alive(self, token: SecretStr) -> bool:
        self.questions += 1
        if self.error:
            raise self.error
        return token not in self.dead

    def cluster(self) -> tuple[str, str]:
        return CLUSTER

    def pause(self) -> None:
        raise AssertionError("nobody else logs in")


@pytest.fixture
def edge() -> FakeEdge:
    return FakeEdge()


@pytest.fixture
def cache(tmp_path: Path) -> TokenCache:
    return TokenCache(tmp_path / "tokens")


@pytest.fixture
def source(cache: TokenCache, edge: FakeEdge) -> LoginSource:
    return LoginSource(DB, cache, edge, edge.clock)


def test_without_any_token_the_first_refusal_is_a_login(source, edge, cache):
    assert source.cached() is None
    assert source.next() == token(101)
    assert edge.logins == 1
    assert [kept.token for kept in cache.find(DB)] == [token(101)]


def test_a_cached_token_comes_first_and_asks_nobody(source, edge, cache):
    cache.keep(DB, token(1))
    assert source.cached() == token(1)
    assert (edge.logins, edge.questions) == (0, 0)


def test_a_dead_cached_token_is_forgotten_and_followed_by_a_login(source, edge, cache):
    cache.keep(DB, token(1))
    edge.dead = [source.cached()]
    assert source.next() == token(101)
    assert [kept.token for kept in cache.all()] == [token(101)]


def test_a_network_error_while_asking_touches_no_token_and_opens_no_browser(source, edge, cache):
    cache.keep(DB, token(1))
    source.cached()
    edge.error = DOWN
    with pytest.raises(CredentialError, match="refused"):
        source.next()
    assert ([kept.token for kept in cache.all()], edge.logins) == ([token(1)], 0)
    edge.error, edge.dead = None, [token(1)]
    assert source.next() == token(101)


def test_a_living_token_that_the_route_refuses_is_final(source, edge, cache):
    source.cached()
    source.next()
    for _ in range(3):
        with pytest.raises(CredentialError, match="another login cannot help"):
            source.next()
        edge.clock.advance(10 * COOL_DOWN_S)
    assert (edge.logins, edge.questions) == (1, 1)
    assert [kept.token for kept in cache.all()] == [token(101)]


def test_a_login_of_somebody_else_lifts_the_verdict(source, edge, cache):
    source.next()
    with pytest.raises(CredentialError):
        source.next()
    cache.keep(DB, token(7, idp_id="idp-2"))
    assert source.next() == token(7, idp_id="idp-2")


def test_a_session_that_ended_later_is_followed_by_a_login(source, edge):
    for number in range(1, 4):
        assert source.next() == token(100 + number)
        edge.clock.advance(max(FRESH_S, COOL_DOWN_S) + 1)
        edge.dead.append(token(100 + number))
    assert edge.logins == 3


def test_logins_whose_tokens_are_dead_at_once_end_after_the_second(source, edge):
    edge.dead = [token(101), token(102), token(103)]
    assert source.next() == token(101)
    with pytest.raises(CredentialError, match="a moment ago"):
        source.next()
    edge.clock.advance(COOL_DOWN_S)
    assert source.next() == token(102)
    edge.clock.advance(1)
    with pytest.raises(CredentialError) as final:
        source.next()
    assert str(final.value) == FRESH_IS_REFUSED
    edge.clock.advance(COOL_DOWN_S)
    with pytest.raises(CredentialError, match="another login"):
        source.next()
    assert edge.logins == 2


@pytest.mark.parametrize(("later_s", "opens"), [(0, False), (COOL_DOWN_S - 0.1, False), (COOL_DOWN_S, True)])
def test_a_login_that_failed_is_followed_by_a_cool_down(source, edge, later_s, opens):
    edge.error = CredentialError("nobody signed in")
    with pytest.raises(CredentialError, match="nobody signed in"):
        source.next()
    edge.error = None
    edge.clock.advance(later_s)
    if opens:
        assert source.next() == token(102)
    else:
        with pytest.raises(CredentialError, match="the next may begin in"):
            source.next()
    assert edge.logins == (2 if opens else 1)


def test_a_login_at_another_name_of_the_cluster_is_used_if_it_lives(source, edge, cache):
    cache.keep(WEB, token(1))
    assert source.cached() is None
    assert source.next() == token(1)
    assert (edge.logins, edge.questions) == (0, 1)
    assert [kept.token for kept in cache.find(DB)] == [token(1)]


def test_a_dead_one_of_another_name_is_left_alone_and_a_login_follows(source, edge, cache):
    cache.keep(WEB, token(1))
    edge.dead = [token(1)]
    assert source.next() == token(101)
    assert [kept.token for kept in cache.find(WEB)] == [token(1)]


def test_a_cache_that_cannot_be_written_is_said(edge, tmp_path):
    (tmp_path / "file").touch()
    source = LoginSource(HostPort("db", 443), TokenCache(tmp_path / "file/tokens"), edge, edge.clock)
    with pytest.raises(CredentialError, match="cannot be used: Not a directory"):
        source.next()
