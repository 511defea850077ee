"""What clients and refills may dial while the breaker is open."""

from __future__ import annotations

import pytest

from pomagent.log import events
from pomagent.pool import decisions
from pomagent.pool.breaker import SHARE_S
from pomagent.pool.demand import REFILL_DELAY_S
from pomagent.pool.dial_budget import MAX_DIALS_PER_ROUTE
from pomagent.protocol.lifecycle import Reason
from tests.fakes.greenlets import settle
from tests.fakes.pool import DENIED, DOWN, Scene


class TestOpenBreaker:
    @pytest.fixture
    def scene(self, make) -> Scene:
        """Return a scene in which a refill has opened the breaker."""
        scene = make(pool_min=1).start()
        scene.fail(DENIED)
        return scene

    def test_opening_is_logged_once_with_cause_and_delay(self, scene):
        scene.client()
        scene.fail(DENIED)
        [line] = scene.fake_log.named(events.BREAKER_OPENED)
        assert (line["failures"], line["retry_in_ms"], line["error"]) == (1, 5000, str(DENIED))

    def test_waiting_clients_share_one_dial(self, scene):
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

    def test_client_is_not_refused_by_a_dial_that_began_before_it_came(self, scene):
        early = scene.client()
        late = scene.client()
        scene.pass_time(SHARE_S)
        assert scene.pending == 2
        scene.fail(DENIED, index=0)
        assert early.value is DENIED
        assert not late.ready()

    def test_client_left_without_a_dial_when_the_breaker_opened_gets_another(self, make):
        scene = make(warm="off").start()
        early = scene.client()
        late = scene.client()
        scene.fail(DOWN, index=1)  # refuses the earlier client: the other dial began before the later client came
        assert early.value is DOWN
        scene.fail(DENIED)
        assert not late.ready()
        scene.pass_time(SHARE_S)
        tunnel = scene.succeed()
        assert late.value is tunnel

    def test_client_without_room_for_a_dial_waits_for_another_dial_to_end(self, scene):
        for _ in range(MAX_DIALS_PER_ROUTE + 1):
            scene.client()
            scene.pass_time(SHARE_S)
        assert scene.pending == MAX_DIALS_PER_ROUTE
        assert decisions.shared_dial_at(scene.pool._state.snapshot(scene.clock.now)) is None
        scene.fail(DENIED)
        assert scene.pending == MAX_DIALS_PER_ROUTE

    def test_clients_with_a_dial_get_no_other(self, scene):
        scene.client()
        scene.pass_time(10 * SHARE_S)
        assert [dial.step for dial in scene.opener.pending] == ["open", "open"]  # the client's, and the pool's own try

    def test_success_closes_the_breaker_and_every_client_gets_a_dial(self, scene):
        clients = [scene.client() for _ in range(3)]
        tunnel = scene.succeed()
        assert clients[0].value is tunnel
        assert scene.fake_log.named(events.BREAKER_CLOSED)
        assert scene.pending >= 2
        scene.filled()
        assert all(client.ready() for client in clients)

    def test_success_of_a_client_permits_refills(self, scene):
        scene.client()
        scene.succeed()
        scene.pass_time(REFILL_DELAY_S)
        assert scene.pending == 1

    def test_half_open_breaker_permits_one_refill(self, make):
        scene = make(pool_min=4).start()
        for _ in range(4):
            scene.fail(DENIED)
        scene.pass_time(5.1)
        assert scene.pending == 1
        scene.succeed()
        assert scene.pending == 3

    def test_operator_closes_the_breaker(self, scene):
        scene.client()
        scene.fail(DENIED)
        waiting = scene.client()
        assert scene.pending == 0
        scene.pool.retry_now()
        settle()
        assert scene.fake_log.named(events.BREAKER_CLOSED)
        scene.filled()
        assert waiting.ready()

    def test_client_that_has_left_gets_no_dial(self, scene):
        scene.client()
        scene.fail(DENIED)
        scene.client().kill()
        scene.pass_time(2 * SHARE_S)
        assert scene.pending == 0

    def test_draining_pool_still_serves_waiting_clients(self, scene):
        scene.client()
        scene.fail(DENIED)
        waiting = scene.client()
        scene.pool.drain(Reason.DRAINED)
        scene.pass_time(SHARE_S)
        tunnel = scene.succeed()
        assert waiting.value is tunnel


class TestEndOfAPoolWithAnOpenBreaker:
    """Only a breaker that heals, or whose failures are forgotten, is logged as closed."""

    def test_stop_logs_no_closed_breaker(self, scene):
        scene.client()
        scene.fail(DENIED)
        scene.pool.close(Reason.DRAINED)
        assert not scene.fake_log.named(events.BREAKER_CLOSED)

    def test_replaced_pool_logs_that_the_failures_are_forgotten(self, scene):
        scene.client()
        scene.fail(DENIED)
        scene.reconfigure(pool_max=5)
        assert scene.fake_log.named(events.BREAKER_CLOSED)
