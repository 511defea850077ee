"""What failed dials and crashes mean for clients and refills."""

from __future__ import annotations

import pytest

from pomagent.errors import (
    GatewayOverloaded,
    PoolError,
)
from pomagent.gateway.mass_loss import REFILLS_PER_S
from pomagent.pool import housekeeper
from pomagent.pool.backoff import HEALTHY_AFTER_S
from pomagent.pool.dialing import RETRY_AFTER_RECOVERY_S
from pomagent.protocol.lifecycle import Reason
from tests.fakes.greenlets import caught_crashes, settle
from tests.fakes.pool import DENIED, DOWN, NAMED
from tests.fakes.tunnels import FakeTunnel


class TestFailures:
    def test_failed_dial_refuses_the_client_that_has_waited_longest(self, scene):
        first, second = scene.client(), scene.client()
        scene.fail(DOWN, index=1)
        assert first.value is DOWN
        assert not second.ready()
        tunnel = scene.succeed()
        assert second.value is tunnel

    def test_failed_dial_refuses_no_client_while_other_dials_suffice(self, scene):
        gone, waiting = scene.client(), scene.client()
        gone.kill()
        scene.fail()
        assert not waiting.ready()
        scene.fail()
        assert waiting.value is DOWN

    def test_failed_refill_refuses_no_client(self, scene):
        scene.start()
        client = scene.client()
        scene.fail(index=0)
        scene.fail(index=0)
        assert not client.ready()
        tunnel = scene.succeed()
        assert client.value is tunnel

    def test_refill_waits_after_a_failure(self, scene):
        scene.start()
        scene.fail()
        scene.fail()
        assert scene.pending == 0
        scene.pass_time(0.29)
        assert scene.pending == 0
        scene.pass_time(0.02)
        assert scene.pending == 2

    def test_client_does_not_wait_for_the_back_off(self, scene):
        scene.start()
        scene.fail(DENIED)
        scene.fail(DENIED)
        scene.client()
        assert scene.pending == 1

    def test_refill_waits_for_as_long_as_the_gateway_asks(self, scene):
        scene.start()
        busy = GatewayOverloaded("refused with 429", status=429, retry_after_s=60.0, **NAMED)
        scene.fail(DOWN)
        scene.fail(busy)
        scene.pass_time(59.9)
        assert scene.pending == 0
        scene.pass_time(0.2)
        assert scene.pending == 1

    def test_operator_ends_the_wait(self, scene):
        scene.start()
        scene.fail(DENIED)
        scene.fail(DENIED)
        scene.pool.retry_now()
        settle()
        assert scene.pending == 2

    def test_refills_that_take_long_to_fail_back_off_too(self, make):
        """The gateway takes 10 s to fail for a firewalled database."""
        scene = make(pool_min=1).start()
        waits = []
        for _ in range(6):
            scene.clock.advance(HEALTHY_AFTER_S + 0.1)
            scene.fail()
            waits.append(scene.pool._state.breaker.retry_at - scene.clock.now)
            scene.pass_time(waits[-1])
        assert pytest.approx(waits) == [0.3, 0.3, 0.3, 1.0, 2.0, 4.0]

    def test_last_failure_is_known_until_a_dial_succeeds(self, scene):
        assert not scene.pool.status.has_succeeded
        scene.start()
        scene.fail()
        assert scene.pool.last_error is DOWN
        assert not scene.pool.status.has_succeeded
        scene.succeed()
        assert scene.pool.last_error is None
        assert scene.pool.status.has_succeeded


class TestGatewayRecovery:
    def test_recovered_gateway_is_tried_at_once_whatever_the_back_off(self, make):
        scene = make(pool_min=1).start()
        for _ in range(9):
            scene.fail(DOWN)
            scene.pass_time(scene.pool.status.retry_in_s)
        scene.fail(DOWN)
        assert scene.pool.status.retry_in_s == 30.0
        scene.clock.advance(RETRY_AFTER_RECOVERY_S)
        scene.gateway_health.reached()  # to another route
        assert scene.pool.status.retry_in_s == pytest.approx(1 / REFILLS_PER_S)
        scene.pass_time(1 / REFILLS_PER_S)
        assert scene.pending == 1

    def test_gateway_that_accepts_only_other_routes_is_tried_once_a_second(self, make):
        scene = make(pool_min=1).start()
        for _ in range(9):
            scene.fail(DOWN)
            scene.pass_time(scene.pool.status.retry_in_s)
        scene.fail(DOWN)
        scene.gateway_health.reached()
        assert scene.pool.status.retry_in_s == RETRY_AFTER_RECOVERY_S

    def test_recovery_of_the_gateway_does_not_affect_a_denied_route(self, make):
        scene = make(pool_min=1).start()
        scene.fail(DENIED)
        scene.gateway_health.reached()
        assert scene.pool.status.retry_in_s == 5.0


class TestBugs:
    def test_crashed_refill_is_reported_and_retried_later(self, make):
        scene = make(pool_min=1, held=frozenset())
        scene.opener.bug = ZeroDivisionError("a bug")
        with caught_crashes() as crashes:
            scene.start()
            assert [ZeroDivisionError] == [type(crash) for crash in crashes]
            assert len(scene.opener.dials) == 1
            scene.opener.bug = None
            scene.pass_time(0.3)
        assert scene.pool.warm_count == 1

    def test_crashed_dial_refuses_its_client_and_is_not_repeated_at_once(self, scene):
        scene.opener.bug = ZeroDivisionError("a bug")
        with caught_crashes() as crashes:
            client = scene.client()
        assert len(crashes) == 1
        assert type(client.value) is PoolError
        assert str(client.value) == "route orders: a bug in pomagent ended the dial (ZeroDivisionError)"

    def test_crashed_dial_does_not_affect_other_clients(self, scene):
        first, second = scene.client(), scene.client()
        with caught_crashes():
            scene.fail(ZeroDivisionError())
        assert type(first.value) is PoolError
        tunnel = scene.succeed()
        assert second.value is tunnel

    def test_housekeeper_resumes_refills_after_a_crash(self, make, monkeypatch):
        monkeypatch.setattr(housekeeper, "RESTART_S", 0.0)
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
    def test_dial_counts_return_to_zero(self, make, level, error):
        scene = make(warm=level, held=frozenset({"secure", "open"})).start()
        clients = [scene.client() for _ in range(3)]
        clients[1].kill()
        with caught_crashes():
            while scene.opener.pending:
                scene.fail(error)
        dials = scene.pool._state.dials
        assert (dials.client_count, dials.refill_count) == (0, 0)
        assert all(client.ready() for client in clients)
