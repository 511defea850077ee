"""What a pool does when its token is revoked, and when the gateway accepts it again."""

from __future__ import annotations

import pytest

from pomagent.errors import CredentialRejected, DestinationDown, TokenMissing
from pomagent.settings import Credential
from tests.fakes.pool import DENIED, NAMED

CREDENTIAL = Credential("default", "command")
REJECTED = CredentialRejected("refused with 401", status=401, **NAMED)
MISSING = TokenMissing("no token", phase="token", **NAMED)
NOWHERE = DestinationDown("refused with 503", status=503, **NAMED)
LEVELS = ("tunnel", "tls", "off")


def breaker_events(scene):
    return [name for name in scene.fake_log.events if name.startswith("breaker.")]


class TestRevocation:
    @pytest.mark.parametrize("level", LEVELS)
    def test_revoked_token_closes_its_tunnels_and_dials_nothing(self, make, level):
        scene = make(warm=level).filled()
        dials = len(scene.opener.dials)
        scene.pool.distrust(REJECTED)
        assert (scene.pool.last_error, scene.pool.status.warm_by_level["tunnel"]) == (REJECTED, 0)
        scene.pass_time(0.1)
        assert len(scene.opener.dials) == dials
        assert breaker_events(scene) == ["breaker.opened"]

    def test_revoked_token_leaves_an_open_breaker_and_its_delay_as_they_are(self, make):
        scene = make().start()
        scene.fail(DENIED)
        scene.fail(DENIED)
        retry_in_s = scene.pool.status.retry_in_s
        assert retry_in_s > 0
        scene.pool.distrust(REJECTED)
        assert scene.pool.status.retry_in_s == retry_in_s
        assert breaker_events(scene) == ["breaker.opened"]

    def test_route_with_a_revoked_token_backs_off(self, make):
        scene = make(pool_min=1).filled()
        before = len(scene.opener.dials)
        scene.pool.distrust(REJECTED)
        for _ in range(30):
            scene.pass_time(1.0)
            while scene.pending:
                scene.fail(REJECTED)
        connects = [dial for dial in scene.opener.dials[before:] if dial.step == "open"]
        assert len(connects) == 2  # after 5 s and after 15 s, with the highest dice
        assert breaker_events(scene) == ["breaker.opened"]


class TestReadmission:
    @pytest.mark.parametrize("level", LEVELS)
    def test_readmitted_token_heals_the_route_without_a_client(self, make, level):
        scene = make(warm=level, pool_min=1).filled()
        scene.pool.distrust(REJECTED)
        scene.pool.trust()
        scene.pass_time(0.1)
        scene.filled()
        assert scene.pool.last_error is None
        assert scene.pool.warm_count == scene.pool.target_count == (0 if level == "off" else 1)
        assert breaker_events(scene) == ["breaker.opened", "breaker.closed"]

    def test_decayed_route_heals(self, make):
        scene = make(warm="tls", pool_decay_s=50.0).filled()
        scene.pass_time(60.0)
        scene.pool.distrust(REJECTED)
        scene.pool.trust()
        assert scene.pool.last_error is None

    @pytest.mark.parametrize("error", [DENIED, NOWHERE])
    def test_other_failure_is_kept(self, make, error):
        scene = make(warm="off").start()
        scene.client()
        scene.fail(error)
        scene.pool.trust()
        assert scene.pool.last_error is error

    @pytest.mark.parametrize("error", [REJECTED, MISSING])
    def test_success_of_another_route_heals_a_rejected_route_once(self, make, error):
        scene = make(warm="off", credential=CREDENTIAL).start()
        scene.client()
        scene.fail(error)
        scene.gateway_health.accepted("another")
        assert scene.pool.last_error is error
        scene.gateway_health.accepted("default")
        assert scene.pool.last_error is None
        scene.client()
        scene.fail(error)
        scene.gateway_health.accepted("default")  # the route needs another credential
        assert scene.pool.last_error is error
        scene.pass_time(1.0)
        scene.client()
        scene.succeed()
        scene.client()
        scene.fail(error)
        scene.gateway_health.accepted("default")
        assert scene.pool.last_error is None

    def test_route_whose_connect_is_accepted_heals_the_others(self, make):
        scene = make(warm="off", credential=CREDENTIAL).start()
        healed = []
        scene.gateway_health.when_accepted("default", "billing", lambda: healed.append("billing"))
        scene.client()
        scene.succeed()
        assert healed == ["billing"]

    def test_tls_connection_proves_nothing_about_a_token(self, make):
        scene = make(warm="tls", credential=CREDENTIAL).start()
        healed = []
        scene.gateway_health.when_accepted("default", "billing", lambda: healed.append("billing"))
        scene.filled()
        assert healed == []
