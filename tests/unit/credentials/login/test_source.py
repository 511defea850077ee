"""Refusals that start a login for ``pomagent tcp``, and those that must not."""

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


class FakeCluster:
    """A gateway at which the test revokes tokens, and a user that signs in at once."""

    def __init__(self) -> None:
        self.dead: list[SecretStr] = []
        self.login_count = 0
        self.check_count = 0
        self.error: Exception | None = None
        self.clock = FakeClock()

    def log_in(self) -> SecretStr:
        self.login_count += 1
        if self.error:
            raise self.error
        return token(100 + self.login_count)

    def is_alive(self, token: SecretStr) -> bool:
        self.check_count += 1
        if self.error:
            raise self.error
        return token not in self.dead

    def identity(self) -> tuple[str, str]:
        return CLUSTER

    def pause(self) -> None:
        raise AssertionError("no other process logs in")


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def cache(tmp_path: Path) -> TokenCache:
    return TokenCache(tmp_path / "tokens")


@pytest.fixture
def source(cache: TokenCache, cluster: FakeCluster) -> LoginSource:
    return LoginSource(DB, cache, cluster, cluster.clock)


def test_the_first_refusal_without_a_token_starts_a_login(source, cluster, cache):
    assert source.cached() is None
    assert source.next() == token(101)
    assert cluster.login_count == 1
    assert [cached.token for cached in cache.find(DB)] == [token(101)]


def test_a_cached_token_comes_first_without_a_request(source, cluster, cache):
    cache.store(DB, token(1))
    assert source.cached() == token(1)
    assert (cluster.login_count, cluster.check_count) == (0, 0)


def test_a_dead_cached_token_is_removed_and_followed_by_a_login(source, cluster, cache):
    cache.store(DB, token(1))
    cluster.dead = [source.cached()]
    assert source.next() == token(101)
    assert [cached.token for cached in cache.all()] == [token(101)]


def test_a_network_error_removes_no_token_and_starts_no_login(source, cluster, cache):
    cache.store(DB, token(1))
    source.cached()
    cluster.error = DOWN
    with pytest.raises(CredentialError, match="refused"):
        source.next()
    assert ([cached.token for cached in cache.all()], cluster.login_count) == ([token(1)], 0)
    cluster.error, cluster.dead = None, [token(1)]
    assert source.next() == token(101)


def test_a_living_token_refused_by_the_route_is_final(source, cluster, cache):
    source.cached()
    source.next()
    for _ in range(3):
        with pytest.raises(CredentialError, match="another login cannot help"):
            source.next()
        cluster.clock.advance(10 * COOL_DOWN_S)
    assert (cluster.login_count, cluster.check_count) == (1, 1)
    assert [cached.token for cached in cache.all()] == [token(101)]


def test_a_login_of_another_process_lifts_the_verdict(source, cluster, cache):
    source.next()
    with pytest.raises(CredentialError):
        source.next()
    cache.store(DB, token(7, idp_id="idp-2"))
    assert source.next() == token(7, idp_id="idp-2")


def test_an_expired_session_is_followed_by_a_login(source, cluster):
    for number in range(1, 4):
        assert source.next() == token(100 + number)
        cluster.clock.advance(max(FRESH_S, COOL_DOWN_S) + 1)
        cluster.dead.append(token(100 + number))
    assert cluster.login_count == 3


def test_two_useless_logins_are_not_followed_by_a_third(source, cluster):
    cluster.dead = [token(101), token(102), token(103)]
    assert source.next() == token(101)
    with pytest.raises(CredentialError, match="a moment ago"):
        source.next()
    cluster.clock.advance(COOL_DOWN_S)
    assert source.next() == token(102)
    cluster.clock.advance(1)
    with pytest.raises(CredentialError) as final:
        source.next()
    assert str(final.value) == FRESH_IS_REFUSED
    cluster.clock.advance(COOL_DOWN_S)
    with pytest.raises(CredentialError, match="another login"):
        source.next()
    assert cluster.login_count == 2


@pytest.mark.parametrize(("later_s", "opens"), [(0, False), (COOL_DOWN_S - 0.1, False), (COOL_DOWN_S, True)])
def test_a_failed_login_is_followed_by_a_cool_down(source, cluster, later_s, opens):
    cluster.error = CredentialError("no login in time")
    with pytest.raises(CredentialError, match="no login in time"):
        source.next()
    cluster.error = None
    cluster.clock.advance(later_s)
    if opens:
        assert source.next() == token(102)
    else:
        with pytest.raises(CredentialError, match="try again in"):
            source.next()
    assert cluster.login_count == (2 if opens else 1)


def test_a_living_token_of_a_sibling_gateway_is_used(source, cluster, cache):
    cache.store(WEB, token(1))
    assert source.cached() is None
    assert source.next() == token(1)
    assert (cluster.login_count, cluster.check_count) == (0, 1)
    assert [cached.token for cached in cache.find(DB)] == [token(1)]


def test_a_dead_token_of_a_sibling_gateway_is_kept_and_a_login_follows(source, cluster, cache):
    cache.store(WEB, token(1))
    cluster.dead = [token(1)]
    assert source.next() == token(101)
    assert [cached.token for cached in cache.find(WEB)] == [token(1)]


def test_an_unwritable_cache_is_reported(cluster, tmp_path):
    (tmp_path / "file").touch()
    source = LoginSource(HostPort("db", 443), TokenCache(tmp_path / "file/tokens"), cluster, cluster.clock)
    with pytest.raises(CredentialError, match="cannot be used: Not a directory"):
        source.next()
