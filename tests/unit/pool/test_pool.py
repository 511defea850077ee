"""A route's warm tunnels: who gets which, who learns of which failure, and that nothing leaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import gevent
import pytest

from pomagent.errors import (
    GatewayOverloaded,
    PoolClosed,
    PoolError,
    PoolExhausted,
    TunnelError,
)
from pomagent.gateway.mass_loss import REFILLS_PER_S
from pomagent.log import events
from pomagent.pool import Pool, PoolContext, decisions
from pomagent.pool import housekeeper as module
from pomagent.pool.backoff import HEALTHY_AFTER_S, RETRY_AFTER_CAP_S
from pomagent.pool.breaker import SHARE_S, BreakerState
from pomagent.pool.demand import REFILL_DELAY_S
from pomagent.pool.dial_budget import MAX_DIALS_PER_ROUTE
from pomagent.pool.dialing import RETRY_AFTER_RECOVERY_S
from pomagent.pool.refill_pacing import LOSS_REVIEW_S
from pomagent.pool.shared_reserve import MIN_KEPT
from pomagent.pool.waiters import MAX_WAITING
from pomagent.pool.warm_policy import LISTEN_S
from pomagent.protocol.lifecycle import Reason, State
from pomagent.settings import HostPort
from tests.fakes.greenlets import caught_crashes, settle
from tests.fakes.pool import DENIED, DOWN, GREENLETS, NAMED, ROUTE, Scene
from tests.fakes.tunnels import FakeOpener, FakeTunnel


@pytest.fixture
def make() -> Iterator[object]:
    scenes: list[Scene] = []

    def make_scene(held: frozenset[str] = frozenset({"open"}), **changes: object) -> Scene:
        scenes.append(Scene(replace(ROUTE, **changes), held))  # type: ignore[arg-type]
        return scenes[-1]

    yield make_scene
    for scene in scenes:
        scene.close()
        pool = scene.pool
        assert (
            pool._state.dials.client_count,
            pool._state.dials.refill_count,
            pool.waiting_count,
            pool.warm_count,
        ) == (
            0,
            0,
            0,
            0,
        )
        assert all(tunnel.state is State.ACTIVE for tunnel in scene.opener.open_tunnels)


@pytest.fixture
def scene(make) -> Scene:
    return make()


class TestWarming:
    def test_a_pool_is_warm_before_anybody_asks(self, scene):
        scene.start()
        assert scene.pending == 2
        scene.succeed()
        scene.succeed()
        assert scene.pool.warm_count == 2
        assert scene.pending == 0
        assert repr(scene.pool) == "<Pool orders: 2/2 warm, 0 waiting>"

    def test_what_it_holds_wants_and_owes_can_be_asked(self, scene):
        scene.start()
        scene.client()
        scene.client()
        scene.succeed()
        assert (scene.pool.warm_count, scene.pool.target_count, scene.pool.waiting_count) == (0, 4, 1)

    def test_nothing_is_dialled_before_the_start(self, scene):
        settle()
        assert scene.opener.dials == []

    def test_a_minimum_of_none_dials_nothing_until_somebody_asks(self, make):
        scene = make(pool_min=0).start()
        assert scene.pending == 0
        scene.client()
        assert scene.pending == 1

    def test_a_refill_follows_a_take_but_not_at_once(self, scene):
        scene.filled()
        assert scene.client().ready()
        assert scene.pending == 0
        scene.pass_time(REFILL_DELAY_S)
        assert scene.pending == 1

    def test_takes_in_quick_succession_do_not_put_the_refill_off_for_ever(self, make):
        scene = make(pool_min=4).filled()
        for _ in range(4):
            scene.client()
            scene.pass_time(REFILL_DELAY_S / 2)
        assert scene.pending > 0

    def test_demand_deepens_the_stock_up_to_the_maximum(self, scene):
        scene.start()
        scene.clock.advance(0.05)  # so long takes a dial
        scene.filled()
        scene.client()
        scene.client()
        scene.pass_time(0.05)
        assert scene.pending == 4

    def test_every_tunnel_that_was_filled_is_told(self, scene):
        scene.filled()
        assert [(line["warm"], line["target"]) for line in scene.fake_log.named(events.POOL_FILLED)] == [(1, 2), (2, 2)]

    def test_dials_whose_clients_have_left_never_overfill_it(self, make):
        scene = make(pool_min=1, pool_max=2).start()
        clients = [scene.client() for _ in range(6)]
        gevent.killall(clients)
        while scene.opener.pending:
            scene.succeed()
            assert scene.pool.warm_count <= 2
        assert scene.pool.warm_count == 2
        assert len(scene.opener.open_tunnels) == 2


class TestLease:
    def test_a_warm_tunnel_is_leased_at_once_the_oldest_first(self, scene):
        scene.filled()
        first, second = scene.warm()
        assert [first, second] == [scene.client().value, scene.client().value]
        assert first.state is State.ACTIVE
        assert not first.is_watched

    def test_without_a_warm_one_a_client_gets_a_dial_of_its_own(self, scene):
        client = scene.client()
        assert scene.pending == 1
        assert not client.ready()
        tunnel = scene.succeed()
        assert client.value is tunnel
        assert tunnel.state is State.ACTIVE
        assert not tunnel.was_warm

    def test_clients_are_served_in_the_order_of_their_coming_whichever_dial_is_done_first(self, scene):
        clients = [scene.client() for _ in range(3)]
        last = scene.succeed(2)
        first = scene.succeed(0)
        assert [last, first, None] == [client.value for client in clients]

    def test_a_refill_serves_whoever_waits(self, scene):
        scene.start()
        client = scene.client()
        refill = scene.succeed()
        assert client.value is refill

    def test_a_dead_warm_tunnel_is_skipped(self, scene):
        scene.filled()
        dead, alive = scene.warm()
        dead.die_unnoticed()
        assert scene.client().value is alive
        assert (dead.state, dead.reason) == (State.CLOSED, Reason.PEER_CLOSED)

    def test_with_nothing_but_dead_ones_the_client_waits_for_a_dial(self, scene):
        scene.filled()
        for tunnel in scene.warm():
            tunnel.die_unnoticed()
        client = scene.client()
        assert scene.pool.warm_count == 0
        tunnel = scene.succeed()
        assert client.value is tunnel

    def test_so_many_clients_wait_and_the_next_is_refused_at_once(self, scene):
        scene.opener.held = frozenset({"secure", "open"})
        waiters = scene.pool._state.waiters
        for _ in range(MAX_WAITING - 1):
            waiters.join(object())
        last = scene.client()
        assert not last.ready()
        over = scene.client()
        assert isinstance(over.value, PoolExhausted)
        assert str(over.value) == f"{MAX_WAITING} clients wait for a tunnel of route orders already"
        while len(waiters) > 1:
            waiters.next()

    def test_clients_dials_are_capped_and_each_outcome_makes_place_for_the_next(self, scene):
        clients = [scene.client() for _ in range(MAX_DIALS_PER_ROUTE + 2)]
        assert scene.pending == MAX_DIALS_PER_ROUTE
        scene.succeed()
        assert scene.pending == MAX_DIALS_PER_ROUTE
        scene.fail()
        assert scene.pending == MAX_DIALS_PER_ROUTE
        while scene.opener.pending:
            scene.succeed()
        assert all(client.ready() for client in clients)


class TestFailures:
    def test_a_failed_dial_is_the_outcome_of_the_client_that_has_waited_longest(self, scene):
        first, second = scene.client(), scene.client()
        scene.fail(DOWN, index=1)
        assert first.value is DOWN
        assert not second.ready()
        tunnel = scene.succeed()
        assert second.value is tunnel

    def test_a_failure_is_nobodys_while_other_dials_suffice(self, scene):
        gone, waiting = scene.client(), scene.client()
        gone.kill()
        scene.fail()
        assert not waiting.ready()
        scene.fail()
        assert waiting.value is DOWN

    def test_a_failed_refill_is_no_clients_failure(self, scene):
        scene.start()
        client = scene.client()
        scene.fail(index=0)
        scene.fail(index=0)
        assert not client.ready()
        tunnel = scene.succeed()
        assert client.value is tunnel

    def test_a_refill_waits_after_a_failure(self, scene):
        scene.start()
        scene.fail()
        scene.fail()
        assert scene.pending == 0
        scene.pass_time(0.29)
        assert scene.pending == 0
        scene.pass_time(0.02)
        assert scene.pending == 2

    def test_a_client_does_not_wait_for_the_back_off(self, scene):
        scene.start()
        scene.fail(DENIED)
        scene.fail(DENIED)
        scene.client()
        assert scene.pending == 1

    def test_a_refill_waits_for_as_long_as_the_gateway_asks(self, scene):
        scene.start()
        busy = GatewayOverloaded("refused with 429", status=429, retry_after_s=60.0, **NAMED)
        scene.fail(DOWN)
        scene.fail(busy)
        scene.pass_time(59.9)
        assert scene.pending == 0
        scene.pass_time(0.2)
        assert scene.pending == 1

    def test_a_word_of_the_operator_ends_the_wait(self, scene):
        scene.start()
        scene.fail(DENIED)
        scene.fail(DENIED)
        scene.pool.retry_now()
        settle()
        assert scene.pending == 2

    def test_refills_that_take_long_to_fail_back_off_too(self, make):
        """A firewalled database, for which the gateway takes 10 s."""
        scene = make(pool_min=1).start()
        waits = []
        for _ in range(6):
            scene.clock.advance(HEALTHY_AFTER_S + 0.1)
            scene.fail()
            waits.append(scene.pool._state.breaker.retry_at - scene.clock.now)
            scene.pass_time(waits[-1])
        assert pytest.approx(waits) == [0.3, 0.3, 0.3, 1.0, 2.0, 4.0]

    def test_the_last_failure_is_known_until_a_dial_succeeds(self, scene):
        assert not scene.pool.status.has_succeeded
        scene.start()
        scene.fail()
        assert scene.pool.last_error is DOWN
        assert not scene.pool.status.has_succeeded
        scene.succeed()
        assert scene.pool.last_error is None
        assert scene.pool.status.has_succeeded


class TestBudget:
    def test_when_it_is_over_the_client_learns_of_the_last_failure(self, scene):
        scene.start()
        scene.fail()
        scene.fail()
        client = scene.client(budget_s=0.0)
        client.join()
        assert isinstance(client.value, PoolExhausted)
        assert str(client.value) == (
            "no tunnel of route orders was ready within 0 s; last failure: "
            "db.example.com:5432 via edge.example.com:443: connection refused"
        )
        assert [(line["warm"], line["waiting"]) for line in scene.fake_log.named(events.POOL_STARVED)] == [(0, 0)]

    def test_without_a_failure_there_is_none_to_name(self, scene):
        client = scene.client(budget_s=0.0)
        client.join()
        assert str(client.value) == "no tunnel of route orders was ready within 0 s"

    def test_the_dial_of_a_client_that_gave_up_fills_the_stock(self, scene):
        scene.client(budget_s=0.0).join()
        tunnel = scene.succeed()
        assert scene.warm() == [tunnel]

    def test_no_budget_is_enough_for_a_warm_tunnel(self, scene):
        scene.filled()
        assert isinstance(scene.client(budget_s=0.0).value, FakeTunnel)


class TestKilledClients:
    def test_its_tunnel_goes_to_the_next_client(self, scene):
        first, second = scene.client(), scene.client()
        first.kill()
        tunnel = scene.succeed()
        assert second.value is tunnel

    def test_a_tunnel_already_handed_to_it_goes_to_the_next_client(self, scene):
        first, second = scene.client(), scene.client()
        tunnel = scene.opener.pending[0].succeed()
        first.kill(block=False)  # arrives after the tunnel, before the client has run
        settle()
        assert second.value is tunnel

    def test_a_tunnel_already_handed_to_it_is_kept_if_nobody_else_waits(self, scene):
        client = scene.client()
        tunnel = scene.opener.pending[0].succeed()
        client.kill(block=False)
        settle()
        assert scene.warm() == [tunnel]

    def test_a_failure_already_handed_to_it_is_nobody_elses(self, scene):
        first, second = scene.client(), scene.client()
        scene.opener.pending[0].fail(DOWN)
        first.kill(block=False)
        settle()
        assert not second.ready()
        assert scene.pending == 1

    def test_all_clients_may_leave_and_no_dial_leaks(self, scene):
        clients = [scene.client() for _ in range(5)]
        gevent.killall(clients)
        while scene.opener.pending:
            scene.fail()
        assert scene.pool._state.dials.client_count == 0
        client = scene.client()
        tunnel = scene.succeed()
        assert client.value is tunnel


class TestExpiry:
    def test_a_tunnel_over_its_age_is_closed_and_replaced(self, scene):
        scene.filled()
        old = scene.warm()
        scene.pass_time(99.9)
        assert scene.warm() == old
        scene.pass_time(0.1)
        assert [tunnel.reason for tunnel in old] == [Reason.EXPIRED, Reason.EXPIRED]
        assert scene.pending == 2

    def test_its_end_is_told_with_reason_and_age(self, make):
        scene = make(pool_min=1).filled()
        scene.pass_time(100.0)
        [line] = scene.fake_log.named(events.TUNNEL_CLOSED)
        assert (line["reason"], line["age_ms"]) == ("expired", 100_000)

    def test_a_leased_tunnel_never_expires(self, scene):
        scene.filled()
        tunnel = scene.client().value
        scene.pass_time(1000.0)
        assert tunnel.state is State.ACTIVE


class TestEndedTunnels:
    def test_one_that_ends_is_closed_and_replaced(self, make):
        scene = make(pool_min=1).filled()
        [tunnel] = scene.warm()
        scene.clock.advance(50.0)
        tunnel.end()
        settle()
        assert tunnel.reason is Reason.PEER_CLOSED
        assert (scene.pool.warm_count, scene.pending) == (0, 0)
        scene.pass_time(LOSS_REVIEW_S)
        assert scene.pending == 1

    def test_tunnels_that_end_young_are_not_replaced_in_a_tight_loop(self, make):
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

    def test_one_that_ends_after_its_lease_is_not_the_pools_business(self, scene):
        scene.filled()
        tunnel = scene.client().value
        tunnel.end()
        assert tunnel.state is State.ACTIVE
        assert scene.pool._state.pacing.early_close_count == 0


class TestLevelTls:
    @pytest.fixture
    def scene(self, make) -> Scene:
        return make(warm="tls").start()

    def test_connections_are_secured_and_no_connect_is_sent(self, scene):
        assert {"secure"} == {dial.step for dial in scene.opener.dials}
        assert [tunnel.state for tunnel in scene.warm()] == [State.SECURED] * 2

    def test_a_lease_sends_the_connect_over_the_oldest_connection(self, scene):
        oldest = scene.warm()[0]
        client = scene.client()
        assert [oldest] == [dial.tunnel for dial in scene.opener.pending]
        scene.succeed()
        assert client.value is oldest
        assert oldest.was_warm
        assert scene.pool.warm_count == 1

    def test_without_a_secured_connection_a_lease_dials(self, scene):
        for tunnel in scene.warm():
            tunnel.die_unnoticed()
        client = scene.client()
        tunnel = scene.succeed()
        assert client.value is tunnel
        assert not tunnel.was_warm

    def test_the_opened_tunnel_of_a_client_that_left_is_discarded(self, scene):
        client = scene.client()
        client.kill()
        tunnel = scene.succeed()
        assert tunnel.reason is Reason.ABORTED
        assert tunnel not in scene.warm()

    def test_a_tunnel_handed_to_a_client_that_left_is_discarded(self, scene):
        client = scene.client()
        tunnel = scene.opener.pending[0].succeed()
        client.kill(block=False)
        settle()
        assert tunnel.reason is Reason.ABORTED

    def test_a_secured_connection_is_never_handed_to_a_client(self, make):
        scene = make(warm="tls", held=frozenset({"secure", "open"})).start()
        client = scene.client()
        for dial in scene.opener.pending[:2]:
            dial.succeed()
        settle()
        assert not client.ready()
        assert scene.pool.warm_count == 2

    def test_it_is_refilled_after_the_lease(self, scene):
        scene.client()
        scene.pass_time(REFILL_DELAY_S)
        assert scene.pool.warm_count == 2

    def test_a_refusal_stands_until_a_connect_is_accepted(self, scene):
        """TLS alone says nothing about the route: it must not look up while every client is refused."""
        assert not scene.pool.status.has_succeeded
        scene.client()
        scene.fail(DENIED)
        scene.pass_time(RETRY_AFTER_CAP_S)
        assert scene.pool.warm_count == 2
        assert scene.pool.last_error is DENIED
        scene.client()
        scene.succeed()
        assert scene.pool.last_error is None
        assert scene.pool.status.has_succeeded

    def test_a_failure_to_connect_is_over_with_the_next_connection(self, make):
        scene = make(warm="tls", held=frozenset({"secure"})).start()
        scene.fail(DOWN)
        assert scene.pool.last_error is DOWN
        scene.succeed()
        assert scene.pool.last_error is None


class TestLevelOff:
    @pytest.fixture
    def scene(self, make) -> Scene:
        return make(warm="off").start()

    def test_nothing_is_kept_warm(self, scene):
        scene.pass_time(3600.0)
        assert scene.opener.dials == []

    def test_a_client_gets_its_tunnel_and_nothing_is_refilled(self, scene):
        client = scene.client()
        tunnel = scene.succeed()
        assert client.value is tunnel
        scene.pass_time(REFILL_DELAY_S)
        assert scene.opener.open_tunnels == [tunnel]

    def test_the_tunnel_of_a_client_that_left_is_discarded(self, scene):
        scene.client().kill()
        assert scene.succeed().reason is Reason.ABORTED


class TestTheEnd:
    def test_a_drain_closes_what_is_warm_and_serves_who_waits(self, make):
        scene = make(pool_min=1).start()
        client = scene.client()
        scene.pool.drain(Reason.DRAINED)
        settle()
        tunnel = scene.succeed()
        assert client.value is tunnel
        rest = scene.succeed()
        assert rest.reason is Reason.ABORTED

    def test_a_refill_that_comes_after_a_drain_has_begun_is_not_wanted(self, make):
        scene = make(pool_min=1).start()
        scene.pool.drain(Reason.DRAINED)
        assert scene.succeed().reason is Reason.UNWANTED

    def test_a_drain_lets_waiting_clients_dial_again_after_a_failure_of_others(self, scene):
        first, second = scene.client(), scene.client()
        scene.pool.drain(Reason.DRAINED)
        scene.fail()
        tunnel = scene.succeed()
        assert [DOWN, tunnel] == [first.value, second.value]

    def test_after_a_drain_nothing_is_kept_warm(self, scene):
        scene.filled()
        warm = scene.warm()
        scene.pool.drain(Reason.STALE)
        settle()
        assert [tunnel.reason for tunnel in warm] == [Reason.STALE, Reason.STALE]
        scene.pass_time(3600.0)
        assert scene.pending == 0

    def test_after_a_drain_who_was_accepted_before_is_served_by_a_dial_of_its_own(self, scene):
        scene.filled()
        scene.pool.drain(Reason.DRAINED)
        client = scene.client()
        tunnel = scene.succeed()
        assert client.value is tunnel
        assert scene.opener.open_tunnels == [tunnel]
        assert scene.pending == 0

    def test_after_a_close_nobody_is_served(self, scene):
        scene.filled()
        scene.pool.close(Reason.STALE)
        assert isinstance(scene.client().value, PoolClosed)
        settle()
        assert scene.pending == 0

    def test_a_close_refuses_who_waits_and_breaks_dials_off(self, scene):
        scene.start()
        client = scene.client()
        scene.pool.close(Reason.STALE)
        settle()
        assert isinstance(client.value, PoolClosed)
        assert scene.pending == 0
        assert scene.opener.open_tunnels == []

    def test_a_close_leaves_leased_tunnels_to_their_sessions(self, scene):
        scene.filled()
        tunnel = scene.client().value
        scene.pool.close(Reason.STALE)
        settle()
        assert tunnel.state is State.ACTIVE

    def test_a_tunnel_already_handed_out_survives_the_close(self, scene):
        client = scene.client()
        tunnel = scene.opener.pending[0].succeed()
        gevent.get_hub().loop.run_callback(scene.pool.close, Reason.STALE)  # after the tunnel, before the client runs
        settle()
        assert client.value is tunnel

    def test_a_client_killed_while_it_is_closed_leaves_no_tunnel_open(self, scene):
        client = scene.client()
        scene.opener.pending[0].succeed()
        client.kill(block=False)
        scene.pool.close(Reason.STALE)
        settle()
        assert scene.opener.open_tunnels == []

    def test_closing_twice_does_no_harm(self, scene):
        scene.filled()
        scene.pool.close(Reason.DRAINED)
        scene.pool.close(Reason.DRAINED)


class TestBugs:
    def test_a_crashed_refill_is_reported_and_tried_again_later(self, make):
        scene = make(pool_min=1, held=frozenset())
        scene.opener.bug = ZeroDivisionError("a bug")
        with caught_crashes() as crashes:
            scene.start()
            assert [ZeroDivisionError] == [type(crash) for crash in crashes]
            assert len(scene.opener.dials) == 1
            scene.opener.bug = None
            scene.pass_time(0.3)
        assert scene.pool.warm_count == 1

    def test_a_crashed_dial_is_its_clients_failure_and_not_a_tight_loop(self, scene):
        scene.opener.bug = ZeroDivisionError("a bug")
        with caught_crashes() as crashes:
            client = scene.client()
        assert len(crashes) == 1
        assert type(client.value) is PoolError
        assert str(client.value) == "a dial for route orders crashed: ZeroDivisionError"

    def test_after_a_crashed_dial_others_are_served(self, scene):
        first, second = scene.client(), scene.client()
        with caught_crashes():
            scene.fail(ZeroDivisionError())
        assert type(first.value) is PoolError
        tunnel = scene.succeed()
        assert second.value is tunnel

    def test_the_keeper_survives_a_crash_and_refills_resume(self, make, monkeypatch):
        monkeypatch.setattr(module, "RESTART_S", 0.0)
        scene = make(pool_min=1).filled()

        close = FakeTunnel.close

        def close_and_crash(tunnel: FakeTunnel, reason: Reason) -> None:
            monkeypatch.setattr(FakeTunnel, "close", close)
            tunnel.close(reason)
            raise ZeroDivisionError

        monkeypatch.setattr(FakeTunnel, "close", close_and_crash)
        with caught_crashes() as crashes:
            scene.pass_time(100.0)
        assert len(crashes) == 1
        assert scene.pending == 1
        scene.succeed()
        assert scene.pool.warm_count == 1

    @pytest.mark.parametrize("level", ["tunnel", "tls", "off"])
    @pytest.mark.parametrize("error", [DOWN, DENIED, ZeroDivisionError()])
    def test_no_dial_leaks_its_count(self, make, level, error):
        scene = make(warm=level, held=frozenset({"secure", "open"})).start()
        clients = [scene.client() for _ in range(3)]
        clients[1].kill()
        with caught_crashes():
            while scene.opener.pending:
                scene.fail(error)
        dials = scene.pool._state.dials
        assert (dials.client_count, dials.refill_count) == (0, 0)
        assert all(client.ready() for client in clients)


def test_tunnel_errors_are_leased_as_they_are(scene):
    """What a session reads is the recovery of the dial that was to serve it."""
    client = scene.client()
    scene.fail(DENIED)
    assert isinstance(client.value, TunnelError)
    assert client.value.recovery is DENIED.recovery


GREETING = b"SSH-2.0-OpenSSH_9.6\r\n"
UNLISTED = {"destination": HostPort("db.example.com", 4711), "protocol": "auto", "warm": "auto"}


class TestAServerThatNothingIsKnownOf:
    @pytest.fixture
    def scene(self, make) -> Scene:
        return make(**UNLISTED, pool_min=3).start()

    def classified(self, scene: Scene) -> list[tuple[str, str, str]]:
        return [(e["protocol"], e["warm"], e["why"]) for e in scene.fake_log.named(events.ROUTE_CLASSIFIED)]

    def test_one_tunnel_listens_first(self, scene):
        assert scene.pending == 1
        scene.succeed()
        assert (scene.pending, scene.pool.warm_count, scene.pool.target_count) == (0, 1, 1)

    def test_no_client_gets_it_before_it_has_heard_enough(self, scene):
        probe = scene.succeed()
        client = scene.client()
        assert client.value is None
        own = scene.succeed()
        assert client.value is own
        assert scene.warm() == [probe]

    def test_a_refill_listens_even_while_clients_wait(self, scene):
        client = scene.client()
        probe = scene.succeed(0)
        assert not client.ready()
        assert scene.warm() == [probe]
        scene.succeed()
        assert client.ready()

    def test_silence_fills_the_pool_with_tunnels(self, scene):
        probe = scene.succeed()
        scene.pass_time(LISTEN_S)
        assert self.classified(scene) == [("generic", "tunnel", "silence")]
        scene.filled()
        assert scene.pool.warm_count == 3
        assert scene.client().value is probe

    def test_where_nobody_listens_any_more_silence_tells_nothing(self, scene):
        scene.succeed()
        scene.pass_time(LISTEN_S / 2)
        scene.reconfigure(pool_max=5)
        scene.pass_time(LISTEN_S)
        assert not self.classified(scene)
        scene.succeed()
        scene.pass_time(LISTEN_S)
        assert self.classified(scene) == [("generic", "tunnel", "silence")]

    def test_a_greeting_closes_it_and_fills_the_pool_with_tls_connections(self, scene):
        probe = scene.succeed()
        probe.say(GREETING)
        settle()
        assert (probe.state, probe.reason) == (State.CLOSED, Reason.UNWANTED)
        assert self.classified(scene) == [("ssh", "tls", "greeting")]
        assert [tunnel.state for tunnel in scene.warm()] == [State.SECURED] * 3

    def test_a_greeting_that_came_with_the_answer_counts_too(self, scene):
        scene.opener.pending[0].tunnel.early += GREETING
        scene.succeed()
        assert self.classified(scene) == [("ssh", "tls", "greeting")]

    def test_a_greeting_in_a_session_counts_too(self, scene):
        scene.history.note_greeting(GREETING, 0.1)
        settle()
        assert self.classified(scene) == [("ssh", "tls", "greeting")]

    def test_the_next_pool_of_the_route_knows_it(self, scene):
        scene.succeed().say(GREETING)
        settle()
        opener = FakeOpener(scene.clock, frozenset())
        context = PoolContext(
            scene.route, scene.history, scene.gateway_health, scene.fake_log.log, GREENLETS, scene.clock
        )
        following = Pool(context, opener)  # type: ignore[arg-type]
        following.start()
        settle()
        assert {"secure"} == {dial.step for dial in opener.dials}
        following.close(Reason.STALE)
        settle()

    def test_without_a_minimum_nothing_is_opened_only_to_listen(self, make):
        assert make(**UNLISTED, pool_min=0).start().pending == 0


class TestDemotion:
    def end_all(self, scene: Scene, age_s: float) -> None:
        """What a server does that gives nobody more than so long to log in."""
        scene.clock.advance(age_s)
        for tunnel in scene.warm():
            tunnel.end()
        settle()

    def demoted(self, make, **changes: object) -> tuple[Scene, int]:
        """A scene whose tunnels all end at 10 s, and how many were opened until that was enough."""
        scene = make(held=frozenset(), **changes).start()
        for _ in range(20):
            self.end_all(scene, 10.0)
            scene.pass_time(1.1)
            scene.pass_time(0.5)
            if scene.fake_log.named(events.ROUTE_DEMOTED):
                break
        return scene, sum(dial.step == "open" for dial in scene.opener.dials)

    @pytest.mark.parametrize(("depth", "most"), [(1, 3), (4, 12), (16, 30), (40, 41), (90, 91)])
    def test_comes_long_before_a_server_has_counted_a_hundred(self, make, depth, most):
        scene, opened = self.demoted(make, pool_min=depth, pool_max=max(depth, 16))
        assert opened <= most
        [line] = scene.fake_log.named(events.ROUTE_DEMOTED)
        assert (line["level"], line["warm"], line["why"], line["retry_in_ms"]) == (
            "warning", "tls", "demoted", 3_600_000,
        )  # fmt: skip
        assert {State.SECURED} == {tunnel.state for tunnel in scene.warm()}
        assert scene.pool.warm_count == depth

    def test_an_expiry_of_our_own_is_no_early_end(self, make):
        scene = make(held=frozenset(), pool_min=4).start()
        for _ in range(20):
            scene.pass_time(100.0)
        assert not scene.fake_log.named(events.ROUTE_DEMOTED)

    def test_ends_with_one_tunnel_an_hour_later(self, make):
        scene, _ = self.demoted(make, pool_min=4, pool_decay_s=0.0)
        scene.pass_time(3600.0)
        [line] = scene.fake_log.named(events.ROUTE_PROMOTED)
        assert (line["warm"], line["why"]) == ("tunnel", "trial")
        assert [tunnel.state for tunnel in scene.warm() if tunnel.is_ready] == [State.READY]

    def test_comes_back_at_once_if_that_one_ends_early_too(self, make):
        scene, _ = self.demoted(make, pool_min=4, pool_decay_s=0.0)
        scene.pass_time(3600.0)
        self.end_all(scene, 10.0)
        scene.pass_time(1.1)
        assert [e["retry_in_ms"] for e in scene.fake_log.named(events.ROUTE_DEMOTED)] == [3_600_000, 7_200_000]


class TestManyLostAtOnce:
    def test_are_replaced_spread_over_a_time_that_grows_with_their_number(self, make):
        scene = make(pool_min=4).filled()
        scene.clock.advance(50.0)
        for number in range(100):
            scene.gateway_health.lost(f"other-{number}", float(number))
        for tunnel in scene.warm():
            tunnel.end()
        scene.pass_time(LOSS_REVIEW_S)
        assert scene.pending == 0
        scene.pass_time(104 / REFILLS_PER_S - 0.01)  # the dice fall on the end
        assert scene.pending == 0
        scene.pass_time(0.02)
        assert scene.pending == 4

    def test_no_client_waits_for_that(self, make):
        scene = make(pool_min=4).filled()
        for tunnel in scene.warm():
            tunnel.end()
        scene.client()
        assert scene.pending == 1

    def test_of_several_routes_are_no_reason_to_demote(self, make):
        scene = make(held=frozenset(), pool_min=4).start()
        for age_s in (30.0, 31.0, 30.0, 31.0):
            scene.clock.advance(age_s)
            scene.gateway_health.lost("other", 300.0)
            for tunnel in scene.warm():
                tunnel.end()
            settle()
            scene.pass_time(1.1)
            scene.pass_time(1.1)
        assert not scene.fake_log.named(events.ROUTE_DEMOTED)


class TestAGatewayThatIsBack:
    def test_is_tried_at_once_however_long_the_pool_would_wait_yet(self, make):
        scene = make(pool_min=1).start()
        for _ in range(9):
            scene.fail(DOWN)
            scene.pass_time(scene.pool.status.retry_in_s)
        scene.fail(DOWN)
        assert scene.pool.status.retry_in_s == 30.0
        scene.clock.advance(RETRY_AFTER_RECOVERY_S)
        scene.gateway_health.answered()  # to another route
        assert scene.pool.status.retry_in_s == pytest.approx(1 / REFILLS_PER_S)
        scene.pass_time(1 / REFILLS_PER_S)
        assert scene.pending == 1

    def test_that_lets_in_others_only_is_tried_no_more_than_once_a_second(self, make):
        scene = make(pool_min=1).start()
        for _ in range(9):
            scene.fail(DOWN)
            scene.pass_time(scene.pool.status.retry_in_s)
        scene.fail(DOWN)
        scene.gateway_health.answered()
        assert scene.pool.status.retry_in_s == RETRY_AFTER_RECOVERY_S

    def test_is_no_news_for_a_route_that_it_denies(self, make):
        scene = make(pool_min=1).start()
        scene.fail(DENIED)
        scene.gateway_health.answered()
        assert scene.pool.status.retry_in_s == 5.0


class TestDecay:
    @pytest.fixture
    def scene(self, make) -> Scene:
        return make(pool_decay_s=60.0, pool_min=3, pool_max_age_s=1000.0, held=frozenset()).start()

    def test_a_route_that_nobody_uses_falls_back_on_a_tls_connection_of_the_reserve(self, scene):
        tunnels = scene.warm()
        scene.pass_time(60.0)
        assert {Reason.UNWANTED} == {tunnel.reason for tunnel in tunnels}
        assert (scene.warm(), scene.pool.target_count) == ([], 0)
        assert [tunnel.state for tunnel in scene.in_reserve()] == [State.SECURED]
        scene.pass_time(10_000.0)
        assert [tunnel.state for tunnel in scene.in_reserve()] == [State.SECURED]
        assert scene.pool.status.is_warm

    def test_the_next_use_takes_it_and_fills_the_pool_again(self, scene):
        scene.pass_time(60.0)
        [secured] = scene.in_reserve()
        assert scene.client().value is secured
        assert scene.history.leases == {"tls": 1}
        scene.pass_time(REFILL_DELAY_S)
        assert [tunnel.state for tunnel in scene.warm()] == [State.READY] * 3
        assert scene.reserve.warm_count == 0

    def test_a_burst_takes_one_connection_of_the_reserve_and_dials_the_others(self, scene):
        for other in range(10):
            scene.reserve.join(other)
        scene.pass_time(60.0)
        assert scene.reserve.warm_count == MIN_KEPT
        clients = [scene.client() for _ in range(3)]
        assert all(client.value.state is State.ACTIVE for client in clients)
        assert scene.history.leases == {"tls": 1, "cold": 2}
        scene.pass_time(1.0)
        assert scene.reserve.warm_count == MIN_KEPT

    def test_what_keeps_nothing_at_least_has_no_part_in_the_reserve(self, make):
        scene = make(pool_decay_s=60.0, pool_min=0, held=frozenset()).start()
        scene.pass_time(60.0)
        assert scene.reserve.warm_count == 0
        assert not scene.pool.status.is_warm

    def test_a_gateway_that_refuses_the_reserve_is_the_routes_last_error_until_it_lets_it_in(self, scene):
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

    def test_a_failure_on_the_way_to_the_gateway_is_not_the_routes_own_any_more(self, make):
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
    def test_the_last_route_that_goes_takes_the_reserve_with_it(self, scene, end):
        scene.pass_time(60.0)
        [secured] = scene.in_reserve()
        getattr(scene.pool, end)(Reason.DRAINED)
        assert (scene.reserve.warm_count, secured.state) == (0, State.CLOSED)
        scene.pass_time(1.0)
        assert scene.reserve.warm_count == 0

    def test_a_use_in_time_puts_it_off(self, scene):
        scene.pass_time(59.0)
        scene.client()
        scene.pass_time(2.0)
        assert {State.READY} == {tunnel.state for tunnel in scene.warm()}


class TestAnOpenBreaker:
    @pytest.fixture
    def scene(self, make) -> Scene:
        """Opened by a refill."""
        scene = make(pool_min=1).start()
        scene.fail(DENIED)
        return scene

    def test_is_told_once_with_the_cause_and_the_wait(self, scene):
        scene.client()
        scene.fail(DENIED)
        [line] = scene.fake_log.named(events.BREAKER_OPENED)
        assert (line["failures"], line["retry_in_ms"], line["error"]) == (1, 5000, str(DENIED))

    def test_one_dial_is_shared_by_all_clients_that_ask(self, scene):
        first = scene.client()
        others = [scene.client() for _ in range(5)]
        assert scene.pending == 1
        scene.fail(DENIED)
        assert first.value is DENIED
        assert not any(other.ready() for other in others)  # they came after it had begun
        scene.pass_time(SHARE_S - 0.01)
        assert scene.pending == 0
        scene.pass_time(0.02)
        assert scene.pending == 1
        scene.fail(DENIED)
        assert {other.value for other in others} == {DENIED}

    def test_nobody_is_refused_by_a_dial_that_began_before_he_came(self, scene):
        early = scene.client()
        late = scene.client()
        scene.pass_time(SHARE_S)
        assert scene.pending == 2
        scene.fail(DENIED, index=0)
        assert early.value is DENIED
        assert not late.ready()

    def test_who_is_left_over_by_dials_that_failed_before_it_opened_gets_another(self, make):
        scene = make(warm="off").start()
        early = scene.client()
        late = scene.client()
        scene.fail(DOWN, index=1)  # tells the earlier client; the other dial began before the later one came
        assert early.value is DOWN
        scene.fail(DENIED)
        assert not late.ready()
        scene.pass_time(SHARE_S)
        tunnel = scene.succeed()
        assert late.value is tunnel

    def test_who_finds_no_place_waits_for_the_end_of_a_dial_and_not_for_time(self, scene):
        for _ in range(MAX_DIALS_PER_ROUTE + 1):
            scene.client()
            scene.pass_time(SHARE_S)
        assert scene.pending == MAX_DIALS_PER_ROUTE
        assert decisions.shared_dial_at(scene.pool._state.snapshot(scene.clock.now)) is None
        scene.fail(DENIED)
        assert scene.pending == MAX_DIALS_PER_ROUTE

    def test_no_dial_is_made_for_clients_that_have_one(self, scene):
        scene.client()
        scene.pass_time(10 * SHARE_S)
        assert [dial.step for dial in scene.opener.pending] == ["open", "open"]  # the client's, and the pool's own try

    def test_a_success_closes_it_and_everybody_dials(self, scene):
        clients = [scene.client() for _ in range(3)]
        tunnel = scene.succeed()
        assert clients[0].value is tunnel
        assert scene.fake_log.named(events.BREAKER_CLOSED)
        assert scene.pending >= 2
        scene.filled()
        assert all(client.ready() for client in clients)

    def test_a_clients_success_ends_the_pools_wait_too(self, scene):
        scene.client()
        scene.succeed()
        scene.pass_time(REFILL_DELAY_S)
        assert scene.pending == 1

    def test_lets_the_pool_try_with_one_dial(self, make):
        scene = make(pool_min=4).start()
        for _ in range(4):
            scene.fail(DENIED)
        scene.pass_time(5.1)
        assert scene.pending == 1
        scene.succeed()
        assert scene.pending == 3

    def test_a_word_of_the_operator_closes_it(self, scene):
        scene.client()
        scene.fail(DENIED)
        waiting = scene.client()
        assert scene.pending == 0
        scene.pool.retry_now()
        settle()
        assert scene.fake_log.named(events.BREAKER_CLOSED)
        scene.filled()
        assert waiting.ready()

    def test_a_client_that_has_left_is_dialled_for_by_nobody(self, scene):
        scene.client()
        scene.fail(DENIED)
        scene.client().kill()
        scene.pass_time(2 * SHARE_S)
        assert scene.pending == 0

    def test_a_drain_still_serves_who_waits(self, scene):
        scene.client()
        scene.fail(DENIED)
        waiting = scene.client()
        scene.pool.drain(Reason.DRAINED)
        scene.pass_time(SHARE_S)
        tunnel = scene.succeed()
        assert waiting.value is tunnel


class TestCounters:
    def test_count_how_each_client_fared(self, make):
        scene = make(pool_min=1).filled()
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

    def test_go_on_in_the_next_pool(self, scene):
        scene.filled()
        scene.client()
        scene.reconfigure(pool_max=7)
        assert scene.history.leases == {"tunnel": 1}
        assert scene.history.discards == {"stale": 1}


def test_a_period_is_told_once(scene):
    for _ in range(10):
        scene.history.note_close(300.0, 900.0)
    [line] = scene.fake_log.named(events.PERIOD_DETECTED)
    assert (line["kind"], line["period_ms"], line["times"]) == ("idle", 300_000, 6)
    assert "idle_timeout" in line["why"]
