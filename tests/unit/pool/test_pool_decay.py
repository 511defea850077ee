"""What an unused route keeps: a share in its gateway's reserve."""

from __future__ import annotations

import pytest

from pomagent.pool.breaker import BreakerState
from pomagent.pool.demand import REFILL_DELAY_S
from pomagent.pool.shared_reserve import MIN_KEPT
from pomagent.protocol.lifecycle import Reason, State
from tests.fakes.greenlets import settle
from tests.fakes.pool import DOWN, Scene


class TestDecay:
    @pytest.fixture
    def scene(self, make) -> Scene:
        return make(pool_decay_s=60.0, pool_min=3, pool_max_age_s=1000.0, held=frozenset()).start()

    def test_unused_route_falls_back_on_the_reserve(self, scene):
        tunnels = scene.warm()
        scene.pass_time(60.0)
        assert {Reason.UNWANTED} == {tunnel.reason for tunnel in tunnels}
        assert (scene.warm(), scene.pool.target_count) == ([], 0)
        assert [tunnel.state for tunnel in scene.in_reserve()] == [State.SECURED]
        scene.pass_time(10_000.0)
        assert [tunnel.state for tunnel in scene.in_reserve()] == [State.SECURED]
        assert scene.pool.status.is_warm

    def test_next_client_gets_the_reserved_connection_and_the_pool_fills_again(self, scene):
        scene.pass_time(60.0)
        [secured] = scene.in_reserve()
        assert scene.client().value is secured
        assert scene.history.leases == {"tls": 1}
        scene.pass_time(REFILL_DELAY_S)
        assert [tunnel.state for tunnel in scene.warm()] == [State.READY] * 3
        assert scene.reserve.warm_count == 0

    def test_burst_takes_one_connection_of_the_reserve_and_dials_the_others(self, scene):
        for other in range(10):
            scene.reserve.join(other)
        scene.pass_time(60.0)
        assert scene.reserve.warm_count == MIN_KEPT
        clients = [scene.client() for _ in range(3)]
        assert all(client.value.state is State.ACTIVE for client in clients)
        assert scene.history.leases == {"tls": 1, "cold": 2}
        scene.pass_time(1.0)
        assert scene.reserve.warm_count == MIN_KEPT

    def test_route_without_a_minimum_has_no_share_in_the_reserve(self, make):
        scene = make(pool_decay_s=60.0, pool_min=0, held=frozenset()).start()
        scene.pass_time(60.0)
        assert scene.reserve.warm_count == 0
        assert not scene.pool.status.is_warm

    def test_error_of_the_reserve_is_the_routes_until_the_reserve_recovers(self, scene):
        scene.reserve_opener.held = frozenset({"secure"})
        scene.pass_time(60.0)
        [dial] = scene.reserve_opener.pending
        dial.fail(DOWN)
        settle()
        assert scene.pool.last_error is DOWN
        scene.reserve_opener.held = frozenset()
        scene.clock.advance(10.0)
        scene.reserve_pool._state.wakeup.ring()
        settle()
        assert (scene.pool.last_error, scene.pool.status.is_warm) == (None, True)

    def test_failure_on_the_way_to_the_gateway_is_forgotten_when_the_route_decays(self, make):
        scene = make(pool_decay_s=60.0, pool_min=1, held=frozenset({"secure"})).start()
        for _ in range(5):
            scene.fail()
            scene.pass_time(1.0)
        assert scene.pool.status.breaker is not BreakerState.CLOSED
        scene.pass_time(60.0)
        for dial in scene.opener.pending:
            dial.fail(DOWN)
        settle()
        scene.pass_time(1.0)
        assert (scene.pool.last_error, scene.pool.status.breaker) == (None, BreakerState.CLOSED)

    @pytest.mark.parametrize("end", ["drain", "close"])
    def test_reserve_closes_with_the_last_unused_route(self, scene, end):
        scene.pass_time(60.0)
        [secured] = scene.in_reserve()
        getattr(scene.pool, end)(Reason.DRAINED)
        assert (scene.reserve.warm_count, secured.state) == (0, State.CLOSED)
        scene.pass_time(1.0)
        assert scene.reserve.warm_count == 0

    def test_use_in_time_postpones_the_decay(self, scene):
        scene.pass_time(59.0)
        scene.client()
        scene.pass_time(2.0)
        assert {State.READY} == {tunnel.state for tunnel in scene.warm()}
