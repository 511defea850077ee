"""The token cache on disk: owners, lookups, siblings and damaged files."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from pomagent.credentials.login.cache import TokenCache
from pomagent.settings import HostPort
from tests.unit.credentials.login.test_claims import jwt

DB, WEB = HostPort("db.corp.example.com", 443), HostPort("web.corp.example.com", 443)
CLUSTER = ("auth.corp.example.com", "idp-1")


def token(number: int = 1, issuer: str = CLUSTER[0], idp_id: str = CLUSTER[1]) -> SecretStr:
    return jwt({"iss": issuer, "idp_id": idp_id, "jti": number})


@pytest.fixture
def cache(tmp_path: Path) -> TokenCache:
    return TokenCache(tmp_path / "state/tokens")


def age(cache: TokenCache) -> None:
    """Backdate all files by a minute."""
    for file in cache.directory.glob("*.json"):
        at = file.stat().st_mtime - 60
        os.utime(file, (at, at))


def test_an_empty_cache_finds_nothing(cache):
    assert (cache.find(DB), cache.all(), cache.forget_gateway(None)) == ([], [], 0)


def test_a_stored_token_is_found_for_its_gateway_only(cache):
    cache.store(DB, token())
    assert [cached.token for cached in cache.find(DB)] == [token()]
    assert cache.find(WEB) == []
    assert cache.find(HostPort(DB.host, 8443)) == []


def test_file_modes_ignore_the_umask(cache):
    old = os.umask(0)
    try:
        cache.store(DB, token())
    finally:
        os.umask(old)
    (file,) = cache.directory.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.directory.stat().st_mode) == 0o700


def test_a_directory_open_to_others_is_closed(cache):
    cache.directory.mkdir(parents=True, mode=0o755)
    cache.store(DB, token())
    assert stat.S_IMODE(cache.directory.stat().st_mode) == 0o700


def test_a_newer_login_replaces_the_older_one_of_the_same_cluster_and_provider(cache):
    cache.store(DB, token(1))
    cache.store(DB, token(2))
    assert [cached.token for cached in cache.all()] == [token(2)]


def test_tokens_of_two_providers_are_found_with_the_newest_first(cache):
    cache.store(DB, token(1))
    age(cache)
    cache.store(DB, token(2, idp_id="idp-2"))
    assert [cached.token for cached in cache.find(DB)] == [token(2, idp_id="idp-2"), token(1)]


def test_no_name_and_no_file_shows_a_token(cache):
    cache.store(DB, token())
    (cached,) = cache.all()
    assert token().get_secret_value() not in repr(cached) + str([*cache.directory.iterdir()])


class TestSiblings:
    def test_a_login_serves_other_names_of_its_cluster(self, cache):
        cache.store(DB, token())
        assert [cached.token for cached in cache.siblings(WEB, *CLUSTER)] == [token()]

    @pytest.mark.parametrize("cluster", [("auth.other.example.com", "idp-1"), (CLUSTER[0], "idp-2"), ("", ""),
                                         (CLUSTER[0], "")])  # fmt: skip
    def test_a_login_serves_no_other_cluster_and_no_other_provider(self, cache, cluster):
        cache.store(DB, token())
        assert cache.siblings(WEB, *cluster) == []

    @pytest.mark.parametrize(
        "host", ["evil.example.net", "evil.example.com", "example.com", "corp.example.com", "a.b.corp.example.com",
                 "10.0.0.1", "localhost", "2001:db8::1"],
    )  # fmt: skip
    def test_a_gateway_of_another_domain_gets_no_token_by_naming_the_cluster(self, cache, host):
        cache.store(DB, token())
        assert cache.siblings(HostPort(host, 443), *CLUSTER) == []

    @pytest.mark.parametrize(
        ("one", "two"),
        [("10.0.0.1", "10.0.0.2"), ("one.com", "two.com"), ("one", "two"), ("one.co.uk", "two.co.uk"),
         ("one.com.au", "two.com.au")],
    )  # fmt: skip
    def test_addresses_and_names_below_a_top_level_have_no_siblings(self, cache, one, two):
        cache.store(HostPort(one, 443), token())
        assert cache.siblings(HostPort(two, 443), *CLUSTER) == []

    @pytest.mark.parametrize("domain", ["corp.co.uk", "corp.de", "a.b.c.example.com", "example.com"])
    def test_names_of_one_domain_are_siblings(self, cache, domain):
        cache.store(HostPort(f"db.{domain}", 443), token())
        assert [cached.token for cached in cache.siblings(HostPort(f"web.{domain}", 443), *CLUSTER)] == [token()]


class TestForgetting:
    def test_a_rejected_token_is_removed_for_all_gateways(self, cache):
        cache.store(DB, token(1))
        cache.store(WEB, token(1))
        cache.store(HostPort("ssh.corp.example.com", 443), token(2))
        cache.forget(token(1))
        assert [cached.token for cached in cache.all()] == [token(2)]

    def test_a_logout_removes_the_tokens_of_one_gateway(self, cache):
        cache.store(DB, token(1))
        cache.store(WEB, token(2))
        assert cache.forget_gateway(DB) == 1
        assert [cached.gateway for cached in cache.all()] == [str(WEB)]
        assert cache.forget_gateway(None) == 1


class TestDamage:
    @pytest.fixture
    def file(self, cache) -> Path:
        cache.store(DB, token())
        (file,) = cache.directory.iterdir()
        return file

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"[]", b"null", b'{"gateway": "x"}', b'{"token": "a b", "gateway": "x"}', b"\xff\xfe",
                    b"[" * 100_000, b'{"token": "' + b"x" * 200_000 + b'"}'],
    )  # fmt: skip
    def test_a_damaged_file_is_ignored(self, cache, file, content):
        file.write_bytes(content)
        assert cache.all() == []
        cache.store(DB, token(2))
        assert [cached.token for cached in cache.find(DB)] == [token(2)]

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
    def test_a_file_accessible_to_others_is_ignored(self, cache, file, mode):
        file.chmod(mode)
        assert cache.all() == []

    def test_a_link_is_not_followed(self, cache, file, tmp_path):
        target = tmp_path / "elsewhere"
        file.rename(target)
        file.symlink_to(target)
        assert cache.all() == []

    def test_a_link_in_place_of_the_directory_is_refused(self, cache, file, tmp_path):
        target = tmp_path / "elsewhere"
        cache.directory.rename(target)
        target.chmod(0o755)
        cache.directory.symlink_to(target)
        assert cache.all() == []
        with pytest.raises(NotADirectoryError, match="symbolic link"):
            cache.store(DB, token(2))
        with pytest.raises(NotADirectoryError, match="symbolic link"), cache.exclusive(DB, lambda: None):
            pass
        with pytest.raises(NotADirectoryError, match="symbolic link"):
            cache.forget_gateway(None)
        assert stat.S_IMODE(target.stat().st_mode) == 0o755
        assert [each.name for each in target.iterdir()] == [file.name]

    def test_a_link_in_place_of_the_lock_is_not_followed(self, cache, tmp_path):
        with cache.exclusive(DB, lambda: None):
            pass
        (lock,) = cache.directory.iterdir()
        lock.unlink()
        lock.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError, match="symbolic links"), cache.exclusive(DB, lambda: None):
            pass
        assert not (tmp_path / "elsewhere").exists()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
    def test_a_directory_of_another_user_is_refused(self, cache, file):
        os.chown(cache.directory, 65534, 65534)
        assert cache.all() == []
        with pytest.raises(PermissionError, match="belongs to another user"):
            cache.store(DB, token(2))
        assert list(cache.directory.iterdir()) == [file]

    def test_a_failed_write_leaves_the_old_token_and_no_draft(self, cache, file, monkeypatch):
        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            cache.store(DB, token(2))
        monkeypatch.undo()
        assert [cached.token for cached in cache.all()] == [token(1)]
        assert list(cache.directory.iterdir()) == [file]

    def test_a_file_contains_gateway_and_token_only(self, file):
        assert set(json.loads(file.read_text())) == {"gateway", "token"}


def test_only_one_process_logs_in_at_a_gateway_at_a_time(cache):
    pauses = []

    class Enough(Exception):
        pass

    def pause() -> None:
        pauses.append(1)
        if len(pauses) == 3:
            raise Enough

    with cache.exclusive(DB, pause):
        with pytest.raises(Enough), cache.exclusive(DB, pause):
            pass
        with cache.exclusive(WEB, pause):
            pass
    with cache.exclusive(DB, pause):
        pass
    assert len(pauses) == 3
