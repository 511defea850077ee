"""Which tunnel or error a client gets, and what is counted."""

from __future__ import annotations

import gevent

from pomagent.errors import (
    PoolExhausted,
    TunnelError,
)
from pomagent.log import events
from pomagent.pool.dial_budget import MAX_DIALS_PER_ROUTE
from pomagent.pool.waiters import MAX_WAITING
from pomagent.protocol.lifecycle import Reason, State
from tests.fakes.greenlets import settle
from tests.fakes.pool import DENIED, DOWN
from tests.fakes.tunnels import FakeTunnel


class TestLease:
    def test_oldest_warm_tunnel_is_leased_at_once(self, scene):
        scene.filled()
        first, second = scene.warm()
        assert [first, second] == [scene.client().value, scene.client().value]
        assert first.state is State.ACTIVE
        assert not first.is_watched

    def test_client_gets_its_own_dial_without_a_warm_tunnel(self, scene):
        client = scene.client()
        assert scene.pending == 1
        assert not client.ready()
        tunnel = scene.succeed()
        assert client.value is tunnel
        assert tunnel.state is State.ACTIVE
        assert not tunnel.was_warm

    def test_clients_are_served_in_order_of_arrival_whichever_dial_ends_first(self, scene):
        clients = [scene.client() for _ in range(3)]
        last = scene.succeed(2)
        first = scene.succeed(0)
        assert [last, first, None] == [client.value for client in clients]

    def test_refill_serves_a_waiting_client(self, scene):
        scene.start()
        client = scene.client()
        refill = scene.succeed()
        assert client.value is refill

    def test_dead_warm_tunnel_is_skipped(self, scene):
        scene.filled()
        dead, alive = scene.warm()
        dead.die_unnoticed()
        assert scene.client().value is alive
        assert (dead.state, dead.reason) == (State.CLOSED, Reason.PEER_CLOSED)

    def test_client_waits_for_a_dial_if_all_warm_tunnels_are_dead(self, scene):
        scene.filled()
        for tunnel in scene.warm():
            tunnel.die_unnoticed()
        client = scene.client()
        assert scene.pool.warm_count == 0
        tunnel = scene.succeed()
        assert client.value is tunnel

    def test_client_beyond_the_limit_of_waiting_clients_is_refused_at_once(self, scene):
        scene.opener.held = frozenset({"secure", "open"})
        waiters = scene.pool._state.waiters
        for _ in range(MAX_WAITING - 1):
            waiters.join(object())
        last = scene.client()
        assert not last.ready()
        over = scene.client()
        assert isinstance(over.value, PoolExhausted)
        assert str(over.value) == f"route orders: {MAX_WAITING} clients already wait for a tunnel"
        while len(waiters) > 1:
            waiters.next()

    def test_dials_for_clients_are_limited_and_each_outcome_makes_room_for_the_next(self, make):
        scene = make(hold_s=0.0)
        clients = [scene.client() for _ in range(MAX_DIALS_PER_ROUTE + 2)]
        assert scene.pending == MAX_DIALS_PER_ROUTE
        scene.succeed()
        assert scene.pending == MAX_DIALS_PER_ROUTE
        scene.fail()
        assert scene.pending == MAX_DIALS_PER_ROUTE
        while scene.opener.pending:
            scene.succeed()
        assert all(client.ready() for client in clients)


class TestDeadline:
    def test_refusal_at_the_deadline_names_the_last_failure(self, scene):
        scene.start()
        scene.fail()
        scene.fail()
        client = scene.client(budget_s=0.0)
        client.join()
        assert isinstance(client.value, PoolExhausted)
        assert str(client.value) == (
            "route orders: no tunnel was ready within 0 s; last failure: "
            "db.example.com:5432: connection refused (via edge.example.com:443)"
        )
        assert [(line["warm"], line["waiting"]) for line in scene.fake_log.named(events.POOL_STARVED)] == [(0, 0)]

    def test_refusal_at_the_deadline_names_no_failure_without_one(self, scene):
        client = scene.client(budget_s=0.0)
        client.join()
        assert str(client.value) == "route orders: no tunnel was ready within 0 s"

    def test_dial_of_a_client_that_gave_up_fills_the_pool(self, scene):
        scene.client(budget_s=0.0).join()
        tunnel = scene.succeed()
        assert scene.warm() == [tunnel]

    def test_warm_tunnel_is_leased_without_any_time_left(self, scene):
        scene.filled()
        assert isinstance(scene.client(budget_s=0.0).value, FakeTunnel)


class TestKilledClients:
    def test_tunnel_of_a_killed_client_goes_to_the_next_client(self, scene):
        first, second = scene.client(), scene.client()
        first.kill()
        tunnel = scene.succeed()
        assert second.value is tunnel

    def test_tunnel_already_given_to_a_killed_client_goes_to_the_next_client(self, scene):
        first, second = scene.client(), scene.client()
        tunnel = scene.opener.pending[0].succeed()
        first.kill(block=False)  # arrives after the tunnel, before the client has run
        settle()
        assert second.value is tunnel

    def test_tunnel_already_given_to_a_killed_client_stays_warm_if_no_other_waits(self, scene):
        client = scene.client()
        tunnel = scene.opener.pending[0].succeed()
        client.kill(block=False)
        settle()
        assert scene.warm() == [tunnel]

    def test_failure_already_given_to_a_killed_client_refuses_no_other(self, scene):
        first, second = scene.client(), scene.client()
        scene.opener.pending[0].fail(DOWN)
        first.kill(block=False)
        settle()
        assert not second.ready()
        assert scene.pending == 1

    def test_dials_are_not_leaked_when_all_clients_leave(self, scene):
        clients = [scene.client() for _ in range(5)]
        gevent.killall(clients)
        while scene.opener.pending:
            scene.fail()
        assert scene.pool._state.dials.client_count == 0
        client = scene.client()
        tunnel = scene.succeed()
        assert client.value is tunnel


def test_tunnel_errors_are_leased_as_they_are(scene):
    """A session reads the recovery of the dial that was to serve it."""
    client = scene.client()
    scene.fail(DENIED)
    assert isinstance(client.value, TunnelError)
    assert client.value.recovery is DENIED.recovery


class TestCounters:
    def test_counters_show_how_clients_were_served(self, make):
        scene = make(pool_min=1, hold_s=0.0).filled()
        scene.client()
        scene.client()
        scene.succeed()
        scene.client(budget_s=0.0).join()
        scene.client()
        scene.fail(index=0)
        scene.fail(index=0)
        assert scene.history.leases == {"tunnel": 1, "cold": 1}
        assert scene.history.refusals == {"starved": 1, "failed": 1}
        assert scene.history.failures == {"gateway_unreachable": 2}

    def test_counters_continue_in_the_next_pool(self, scene):
        scene.filled()
        scene.client()
        scene.reconfigure(pool_max=7)
        assert scene.history.leases == {"tunnel": 1}
        assert scene.history.discards == {"stale": 1}
