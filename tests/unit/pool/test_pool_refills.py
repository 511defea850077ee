"""What a pool keeps warm: refills after leases, expiry and losses."""

from __future__ import annotations

import gevent

from pomagent.log import events
from pomagent.pool.demand import REFILL_DELAY_S
from pomagent.pool.refill_pacing import LOSS_REVIEW_S
from pomagent.protocol.lifecycle import Reason, State
from tests.fakes.greenlets import settle


class TestWarming:
    def test_pool_is_warm_before_a_client_comes(self, scene):
        scene.start()
        assert scene.pending == 2
        scene.succeed()
        scene.succeed()
        assert scene.pool.warm_count == 2
        assert scene.pending == 0
        assert repr(scene.pool) == "<Pool orders: 2/2 warm, 0 waiting>"

    def test_warm_tunnels_target_and_waiting_clients_are_counted(self, scene):
        scene.start()
        scene.client()
        scene.client()
        scene.succeed()
        assert (scene.pool.warm_count, scene.pool.target_count, scene.pool.waiting_count) == (0, 4, 1)

    def test_nothing_is_dialled_before_the_start(self, scene):
        settle()
        assert scene.opener.dials == []

    def test_pool_without_a_minimum_dials_nothing_until_a_client_comes(self, make):
        scene = make(pool_min=0).start()
        assert scene.pending == 0
        scene.client()
        assert scene.pending == 1

    def test_refill_follows_a_lease_after_a_delay(self, scene):
        scene.filled()
        assert scene.client().ready()
        assert scene.pending == 0
        scene.pass_time(REFILL_DELAY_S)
        assert scene.pending == 1

    def test_leases_in_quick_succession_do_not_delay_the_refill_for_ever(self, make):
        scene = make(pool_min=4).filled()
        for _ in range(4):
            scene.client()
            scene.pass_time(REFILL_DELAY_S / 2)
        assert scene.pending > 0

    def test_demand_raises_the_target_up_to_the_maximum(self, scene):
        scene.start()
        scene.clock.advance(0.05)  # the duration of a dial
        scene.filled()
        scene.client()
        scene.client()
        scene.pass_time(0.05)
        assert scene.pending == 4

    def test_each_refill_is_logged(self, scene):
        scene.filled()
        assert [(line["warm"], line["target"]) for line in scene.fake_log.named(events.POOL_FILLED)] == [(1, 2), (2, 2)]

    def test_dials_whose_clients_have_left_never_overfill_the_pool(self, make):
        scene = make(pool_min=1, pool_max=2).start()
        clients = [scene.client() for _ in range(6)]
        gevent.killall(clients)
        while scene.opener.pending:
            scene.succeed()
            assert scene.pool.warm_count <= 2
        assert scene.pool.warm_count == 2
        assert len(scene.opener.open_tunnels) == 2


class TestExpiry:
    def test_expired_tunnel_is_closed_and_replaced(self, scene):
        scene.filled()
        old = scene.warm()
        scene.pass_time(99.9)
        assert scene.warm() == old
        scene.pass_time(0.1)
        assert [tunnel.reason for tunnel in old] == [Reason.EXPIRED, Reason.EXPIRED]
        assert scene.pending == 2

    def test_expiry_is_logged_with_reason_and_age(self, make):
        scene = make(pool_min=1).filled()
        scene.pass_time(100.0)
        [line] = scene.fake_log.named(events.TUNNEL_CLOSED)
        assert (line["reason"], line["age_ms"]) == ("expired", 100_000)

    def test_leased_tunnel_never_expires(self, scene):
        scene.filled()
        tunnel = scene.client().value
        scene.pass_time(1000.0)
        assert tunnel.state is State.ACTIVE


class TestLostTunnels:
    def test_lost_tunnel_is_closed_and_replaced(self, make):
        scene = make(pool_min=1).filled()
        [tunnel] = scene.warm()
        scene.clock.advance(50.0)
        tunnel.end()
        settle()
        assert tunnel.reason is Reason.PEER_CLOSED
        assert (scene.pool.warm_count, scene.pending) == (0, 0)
        scene.pass_time(LOSS_REVIEW_S)
        assert scene.pending == 1

    def test_tunnels_that_close_young_are_not_replaced_in_a_tight_loop(self, make):
        scene = make(pool_min=1, held=frozenset()).start()
        for _ in range(4):
            scene.warm()[0].end()
            settle()
            assert scene.pool.warm_count == 0
            assert scene.pending == 0
            scene.pass_time(2.0)  # more than any wait so far
            scene.pass_time(0.0)
        assert scene.pool._state.pacing.early_close_count == 4

    def test_tunnels_that_are_dead_on_arrival_are_not_dialled_in_a_tight_loop(self, scene):
        scene.start()
        for dial in scene.opener.pending:
            dial.tunnel.die_unnoticed()
            dial.succeed()
        settle()
        assert scene.pool.warm_count == 0
        assert scene.pending == 0
        assert {Reason.PEER_CLOSED} == {tunnel.reason for tunnel in scene.opener.tunnels}

    def test_pool_ignores_a_tunnel_that_closes_after_its_lease(self, scene):
        scene.filled()
        tunnel = scene.client().value
        tunnel.end()
        assert tunnel.state is State.ACTIVE
        assert scene.pool._state.pacing.early_close_count == 0
