"""What a denial by the gateway's policy does to what a route keeps warm."""

from __future__ import annotations

import pytest

from pomagent.errors import CredentialRejected, DestinationDown, RequestRefused
from tests.fakes.pool import DENIED, DOWN, NAMED

RETRY_S = 5.0
"""Seconds from a denial to the next dial of the pool, with the highest dice."""
OTHER_FAILURES = [
    DOWN,
    DestinationDown("refused with 503", status=503, **NAMED),
    CredentialRejected("refused with 401", status=401, **NAMED),
    RequestRefused("refused with 403 by a firewall", status=403, **NAMED),
]


def reasons(scene):
    return [event["reason"] for event in scene.fake_log.named("tunnel.closed")]


class TestDenial:
    def test_denied_refill_closes_the_warm_tunnels_before_the_next_client(self, make):
        scene = make(pool_min=3).filled()
        scene.client()
        scene.pass_time(1.0)
        assert scene.pool.warm_count == 2
        scene.fail(DENIED)
        assert (scene.pool.warm_count, scene.pending) == (0, 0)
        assert reasons(scene) == ["refused", "refused"]
        client = scene.client()
        scene.fail(DENIED)
        assert client.value is DENIED

    def test_denial_of_a_client_closes_the_warm_tunnels_too(self, make):
        scene = make(pool_min=1, pool_max=1).filled()
        first, second = scene.client(), scene.client()
        scene.fail(DENIED)
        assert (first.ready(), second.value, scene.pool.warm_count) == (True, DENIED, 0)

    @pytest.mark.parametrize("error", OTHER_FAILURES, ids=lambda error: type(error).__name__)
    def test_other_failure_keeps_the_warm_tunnels(self, make, error):
        scene = make(pool_min=3).filled()
        scene.client()
        scene.pass_time(1.0)
        scene.fail(error)
        assert (scene.pool.warm_count, reasons(scene)) == (2, [])

    def test_tunnel_that_was_dialled_before_the_denial_serves_a_client_but_is_not_kept(self, make):
        scene = make(pool_min=2).start()
        assert scene.pending == 2
        scene.clock.advance(0.1)
        scene.fail(DENIED)
        scene.succeed()
        assert (scene.pool.warm_count, scene.pool.last_error) == (0, DENIED)

    def test_tunnels_are_kept_again_once_a_dial_is_accepted(self, make):
        scene = make(pool_min=2).start()
        scene.clock.advance(0.1)
        scene.fail(DENIED)
        scene.fail(DENIED)
        scene.pass_time(RETRY_S)
        assert scene.pending == 1
        scene.succeed()
        scene.succeed()
        assert (scene.pool.warm_count, scene.pool.last_error) == (2, None)

    def test_route_that_keeps_tls_connections_keeps_them(self, make):
        scene = make(warm="tls", pool_min=2).filled()
        client = scene.client()
        scene.fail(DENIED)
        assert (client.value, scene.pool.status.warm_by_level) == (DENIED, {"tunnel": 0, "tls": 1})

    def test_route_without_warm_tunnels_asks_once_for_each_client(self, make):
        scene = make(warm="off").start()
        for count in (1, 2):
            scene.client()
            scene.pass_time(1.0)
            scene.fail(DENIED)
            scene.pass_time(60.0)
            asked = [dial for dial in scene.opener.dials if dial.step == "open"]
            assert (len(asked), scene.pending) == (count, 0)
