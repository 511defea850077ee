"""What a drain and a close do to clients, dials and warm tunnels."""

from __future__ import annotations

import gevent

from pomagent.errors import (
    PoolClosed,
)
from pomagent.protocol.lifecycle import Reason, State
from tests.fakes.greenlets import settle
from tests.fakes.pool import DOWN


class TestDrainAndClose:
    def test_drain_closes_warm_tunnels_and_serves_waiting_clients(self, make):
        scene = make(pool_min=1).start()
        client = scene.client()
        scene.pool.drain(Reason.DRAINED)
        settle()
        tunnel = scene.succeed()
        assert client.value is tunnel
        rest = scene.succeed()
        assert rest.reason is Reason.ABORTED

    def test_refill_that_ends_during_a_drain_is_closed(self, make):
        scene = make(pool_min=1).start()
        scene.pool.drain(Reason.DRAINED)
        assert scene.succeed().reason is Reason.UNWANTED

    def test_waiting_clients_keep_their_dials_in_a_drain_after_others_failed(self, scene):
        first, second = scene.client(), scene.client()
        scene.pool.drain(Reason.DRAINED)
        scene.fail()
        tunnel = scene.succeed()
        assert [DOWN, tunnel] == [first.value, second.value]

    def test_drained_pool_keeps_nothing_warm(self, scene):
        scene.filled()
        warm = scene.warm()
        scene.pool.drain(Reason.STALE)
        settle()
        assert [tunnel.reason for tunnel in warm] == [Reason.STALE, Reason.STALE]
        scene.pass_time(3600.0)
        assert scene.pending == 0

    def test_drained_pool_serves_an_accepted_client_by_its_own_dial(self, scene):
        scene.filled()
        scene.pool.drain(Reason.DRAINED)
        client = scene.client()
        tunnel = scene.succeed()
        assert client.value is tunnel
        assert scene.opener.open_tunnels == [tunnel]
        assert scene.pending == 0

    def test_closed_pool_refuses_every_client(self, scene):
        scene.filled()
        scene.pool.close(Reason.STALE)
        assert isinstance(scene.client().value, PoolClosed)
        settle()
        assert scene.pending == 0

    def test_close_refuses_waiting_clients_and_aborts_dials(self, scene):
        scene.start()
        client = scene.client()
        scene.pool.close(Reason.STALE)
        settle()
        assert isinstance(client.value, PoolClosed)
        assert scene.pending == 0
        assert scene.opener.open_tunnels == []

    def test_close_leaves_leased_tunnels_to_their_sessions(self, scene):
        scene.filled()
        tunnel = scene.client().value
        scene.pool.close(Reason.STALE)
        settle()
        assert tunnel.state is State.ACTIVE

    def test_tunnel_already_given_to_a_client_survives_the_close(self, scene):
        client = scene.client()
        tunnel = scene.opener.pending[0].succeed()
        gevent.get_hub().loop.run_callback(scene.pool.close, Reason.STALE)  # after the tunnel, before the client runs
        settle()
        assert client.value is tunnel

    def test_client_killed_during_the_close_leaves_no_tunnel_open(self, scene):
        client = scene.client()
        scene.opener.pending[0].succeed()
        client.kill(block=False)
        scene.pool.close(Reason.STALE)
        settle()
        assert scene.opener.open_tunnels == []

    def test_second_close_changes_nothing(self, scene):
        scene.filled()
        scene.pool.close(Reason.DRAINED)
        scene.pool.close(Reason.DRAINED)
