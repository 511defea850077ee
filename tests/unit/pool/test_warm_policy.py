"""What a route keeps warm, by its settings, its port, its server's greeting and its use."""

from typing import Any

import pytest

from pomagent.pool.presets import PRESETS, SILENT_MAX_AGE_S
from pomagent.pool.warm_policy import (
    LISTEN_S,
    PROMOTE_AFTER_CAP_S,
    PROMOTE_AFTER_S,
    TLS_MAX_AGE_CAP_S,
    TLS_MAX_AGE_S,
    TRIAL_S,
    PolicyReason,
    WarmPolicy,
    WarmTarget,
)
from pomagent.settings import Gateway, HostPort, Route

NOW = 1000.0
GATEWAY = Gateway("corp", HostPort("edge.example.com", 443))
GREETING = b"SSH-2.0-OpenSSH_9.6\r\n"


def route(port: int = 4711, protocol: str = "auto", warm: Any = "auto", **more: Any) -> Route:
    return Route(
        "r", HostPort("127.0.0.1", 1), HostPort("host.example.com", port), GATEWAY, protocol=protocol, warm=warm, **more
    )


def policy_of(port: int = 4711, **keys: Any) -> WarmPolicy:
    return WarmPolicy(route(port, **keys), NOW)


def seen(policy: WarmPolicy, now: float = NOW) -> tuple[str, str, str]:
    target = policy.target(now)
    return policy.protocol, target.level, target.reason.value


@pytest.mark.parametrize(
    ("port", "keys", "protocol", "level", "age_s"),
    [
        (80, {}, "http", "tunnel", 120),
        (443, {}, "http", "tunnel", 120),
        (8080, {}, "http", "tunnel", 120),
        (6379, {}, "redis", "tunnel", 240),
        (5432, {}, "postgres", "tunnel", 45),
        (22, {}, "ssh", "tls", 240),
        (3306, {}, "mysql", "tls", 240),
        (3389, {}, "rdp", "tls", 240),
        (1433, {}, "mssql", "tls", 240),
        (4711, {}, "unknown", "tunnel", 120),
        (4711, {"warm": "tunnel"}, "unknown", "tunnel", 120),
        (4711, {"protocol": "generic"}, "generic", "tunnel", 120),
        (4711, {"protocol": "mysql"}, "mysql", "tls", 240),
        (5432, {"protocol": "mysql"}, "mysql", "tls", 240),
        (22, {"warm": "tunnel"}, "ssh", "tunnel", 240),
        (6379, {"warm": "tls"}, "redis", "tls", 240),
        (6379, {"warm": "off"}, "redis", "off", 240),
        (6379, {"pool_max_age_s": 7.0}, "redis", "tunnel", 7),
        (22, {"pool_max_age_s": 7.0}, "ssh", "tls", 7),
        (22, {"pool_max_age_s": 3600.0}, "ssh", "tls", TLS_MAX_AGE_CAP_S),
        (6379, {"pool_max_age_s": 3600.0}, "redis", "tunnel", 3600),
    ],
)
def test_level_and_age_follow_from_port_and_settings(port, keys, protocol, level, age_s):
    policy = policy_of(port, **keys)
    target = policy.target(NOW)
    assert (protocol, level, age_s) == (policy.protocol, target.level, target.max_age_s)


class TestClassification:
    def test_unknown_server_is_probed_with_one_tunnel_that_no_client_gets(self):
        target = policy_of().target(NOW)
        assert (target.reason, target.level, target.max_count, target.may_be_leased) == (
            PolicyReason.PROBING, "tunnel", True, False,
        )  # fmt: skip

    def test_greeting_sets_the_level_to_tls(self):
        policy = policy_of()
        assert policy.note_greeting(GREETING, 0.1)
        assert seen(policy) == ("ssh", "tls", "greeting")

    def test_silence_sets_the_level_to_tunnels_of_a_safe_age(self):
        policy = policy_of()
        policy.started_listening(NOW)
        assert policy.next_at(NOW) == NOW + LISTEN_S
        assert not policy.classify_silence(NOW + LISTEN_S - 0.1)
        assert policy.classify_silence(NOW + LISTEN_S)
        assert policy.target(NOW) == WarmTarget("tunnel", PolicyReason.SILENCE, 45.0)
        assert policy.protocol == "generic"

    def test_silence_is_classified_once(self):
        policy = policy_of()
        policy.started_listening(NOW)
        assert policy.classify_silence(NOW + 10)
        assert not policy.classify_silence(NOW + 20)

    def test_silence_proves_nothing_without_a_listening_tunnel(self):
        policy = policy_of()
        policy.started_listening(NOW)
        policy.stopped_listening()
        assert not policy.classify_silence(NOW + 10)
        policy.started_listening(NOW + 10)
        assert not policy.classify_silence(NOW + 10 + LISTEN_S - 0.1)

    def test_second_tunnel_does_not_restart_the_listening(self):
        policy = policy_of()
        policy.started_listening(NOW)
        policy.started_listening(NOW + 2)
        assert policy.classify_silence(NOW + LISTEN_S)

    def test_late_greeting_corrects_silence(self):
        policy = policy_of()
        policy.started_listening(NOW)
        policy.classify_silence(NOW + LISTEN_S)
        assert policy.note_greeting(GREETING, 8.0)
        assert seen(policy) == ("ssh", "tls", "greeting")

    def test_greeting_corrects_the_port(self):
        policy = policy_of(8080)
        assert policy.note_greeting(GREETING, 0.1)
        assert seen(policy) == ("ssh", "tls", "greeting")

    def test_postgres_error_identifies_postgres_and_keeps_its_tunnels(self):
        policy = policy_of()
        assert policy.note_greeting(b"E\x00\x00\x00\x70SFATAL\x00", 60.0)
        assert policy.target(NOW) == WarmTarget("tunnel", PolicyReason.GREETING, 45.0)

    def test_repeated_greeting_changes_nothing(self):
        policy = policy_of()
        assert [policy.note_greeting(GREETING, 0.1) for _ in range(2)] == [True, False]
        assert not policy_of(22).note_greeting(GREETING, 0.1)

    def test_configured_protocol_is_not_corrected(self):
        policy = policy_of(protocol="generic")
        assert not policy.note_greeting(GREETING, 0.1)
        assert seen(policy) == ("generic", "tunnel", "protocol")

    def test_greeting_changes_only_the_name_if_the_level_is_configured(self):
        policy = policy_of(warm="tunnel")
        assert policy.note_greeting(GREETING, 0.1)
        assert seen(policy) == ("ssh", "tunnel", "configured")


class TestDemotion:
    def test_demotion_keeps_tls_connections_for_a_while(self):
        policy = policy_of(6379)
        assert policy.demote(NOW) == PROMOTE_AFTER_S
        assert seen(policy) == ("redis", "tls", "demoted")
        assert policy.next_at(NOW) == NOW + 1800  # it decays before

    def test_demotion_overrides_configured_tunnels(self):
        policy = policy_of(3306, warm="tunnel")
        policy.demote(NOW)
        assert seen(policy) == ("mysql", "tls", "demoted")

    def test_trial_follows_with_one_tunnel(self):
        policy = policy_of(6379)
        policy.demote(NOW)
        later = NOW + PROMOTE_AFTER_S
        policy.used(later)
        assert not policy.begin_trial(later - 0.1)
        assert policy.begin_trial(later)
        assert not policy.begin_trial(later)
        target = policy.target(later)
        assert (target.level, target.reason, target.max_count, target.may_be_leased) == (
            "tunnel", PolicyReason.TRIAL, True, True,
        )  # fmt: skip

    def test_trial_waits_for_the_route_to_be_used(self):
        policy = policy_of(6379)
        policy.demote(NOW)
        assert not policy.begin_trial(NOW + PROMOTE_AFTER_S)
        assert policy.next_at(NOW + PROMOTE_AFTER_S) is None
        policy.used(NOW + 2 * PROMOTE_AFTER_S)
        assert policy.begin_trial(NOW + 2 * PROMOTE_AFTER_S)

    def test_successful_trial_ends_the_demotion(self):
        policy = policy_of(6379, pool_decay_s=0.0)
        policy.demote(NOW)
        later = NOW + PROMOTE_AFTER_S
        assert policy.next_at(NOW) == later
        policy.begin_trial(later)
        assert policy.next_at(later) == later + TRIAL_S
        assert not policy.end_trial(later + TRIAL_S - 0.1)
        assert policy.end_trial(later + TRIAL_S)
        assert seen(policy, later + TRIAL_S) == ("redis", "tunnel", "port")
        assert policy.demote(later + TRIAL_S) == PROMOTE_AFTER_S

    def test_failed_trial_doubles_the_time_to_the_next_up_to_a_day(self):
        policy = policy_of(6379, pool_decay_s=0.0)
        now, pauses = NOW, []
        for _ in range(7):
            pauses.append(policy.demote(now))
            now += pauses[-1]
            assert policy.begin_trial(now)
        hours = [pause / 3600 for pause in pauses]
        assert hours == [1, 2, 4, 8, 16, 24, 24]
        assert PROMOTE_AFTER_CAP_S == 24 * 3600

    def test_demotion_changes_nothing_without_tunnels(self):
        for policy in (policy_of(22), policy_of(warm="off")):
            before = policy.target(NOW)
            policy.demote(NOW)
            assert policy.target(NOW) == before


def test_possible_postgres_tunnels_expire_before_its_authentication_timeout():
    default_s = 60.0  # authentication_timeout
    assert max(SILENT_MAX_AGE_S, PRESETS["postgres"].max_age_s) < default_s


def test_configured_tunnels_to_a_silent_server_have_the_usual_age():
    ages = []
    for warm in ("auto", "tunnel"):
        policy = policy_of(warm=warm)
        policy.started_listening(NOW)
        assert policy.classify_silence(NOW + LISTEN_S)
        ages.append(policy.target(NOW + LISTEN_S).max_age_s)
    assert ages == [SILENT_MAX_AGE_S, PRESETS["generic"].max_age_s]


class TestDecay:
    @pytest.mark.parametrize("keys", [{}, {"warm": "tunnel"}, {"warm": "tls"}, {"protocol": "ssh"}])
    def test_unused_route_keeps_nothing_of_its_own_until_used(self, keys):
        policy = policy_of(pool_decay_s=60.0, **keys)
        before = policy.target(NOW + 59.9)
        assert before.reason is not PolicyReason.DECAYED
        assert policy.next_at(NOW) == NOW + 60.0
        assert policy.target(NOW + 60.0) == WarmTarget("tls", PolicyReason.DECAYED, TLS_MAX_AGE_S, max_count=0)
        assert policy.next_at(NOW + 60.0) is None
        policy.used(NOW + 1000.0)
        assert policy.target(NOW + 1000.0) == before

    def test_decay_after_zero_seconds_is_off(self):
        policy = policy_of(6379, pool_decay_s=0.0)
        assert policy.target(NOW + 1e9).reason is PolicyReason.PORT
        assert policy.next_at(NOW) is None

    def test_unused_route_at_level_off_stays_off(self):
        assert policy_of(warm="off", pool_decay_s=60.0).target(NOW + 1000).level == "off"


def test_changed_settings_of_the_same_server_keep_what_was_learned():
    policy = policy_of()
    policy.note_greeting(GREETING, 0.1)
    policy.follow(route(pool_decay_s=5.0))
    assert seen(policy) == ("ssh", "tls", "greeting")
    assert policy.target(NOW + 5).reason is PolicyReason.DECAYED
