"""When a route's breaker opens and closes, and what it permits meanwhile."""

import pytest

from pomagent.errors import Recovery
from pomagent.pool.backoff import FAST_TRIES, HEALTHY_AFTER_S
from pomagent.pool.breaker import SHARE_S, Breaker, BreakerState
from tests.fakes.clock import FakeDice

NOW = 1000.0


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(FakeDice(1.0))


def fail_until_open(breaker: Breaker, now: float = NOW) -> float:
    """Fail like a pool that dials as soon as it may, and return when the breaker opened."""
    while not breaker.failed(Recovery.RETRY, now):
        now = breaker.retry_at
    return now


def test_breaker_stays_closed_during_the_fast_tries(breaker):
    now = NOW
    for _ in range(FAST_TRIES):
        assert not breaker.failed(Recovery.RETRY, now)
        assert breaker.state(now) is BreakerState.CLOSED
        now = breaker.retry_at
    assert breaker.failed(Recovery.RETRY, now)
    assert (breaker.state(now), breaker.failure_count) == (BreakerState.OPEN, FAST_TRIES + 1)


@pytest.mark.parametrize("recovery", [Recovery.REAUTHENTICATE, Recovery.OPERATOR])
def test_verdict_of_the_gateway_opens_the_breaker_at_once(breaker, recovery):
    assert breaker.failed(recovery, NOW)


def test_gateway_that_asks_to_wait_opens_the_breaker_at_once(breaker):
    assert breaker.failed(Recovery.RETRY, NOW, at_least_s=30.0)
    assert breaker.retry_at == NOW + 30.0


def test_failures_of_dials_that_began_together_do_not_use_up_the_fast_tries(breaker):
    assert not any(breaker.failed(Recovery.RETRY, NOW) for _ in range(16))
    assert breaker.failure_count == 16


def test_open_breaker_does_not_open_again(breaker):
    now = fail_until_open(breaker)
    assert not breaker.failed(Recovery.RETRY, now + 60)


def test_half_open_breaker_opens_for_longer_after_a_failure(breaker):
    fail_until_open(breaker)
    waits = []
    for _ in range(3):
        now = breaker.retry_at
        assert breaker.state(now - 0.01) is BreakerState.OPEN
        assert breaker.state(now) is BreakerState.HALF_OPEN
        breaker.failed(Recovery.RETRY, now)
        waits.append(breaker.retry_at - now)
    assert pytest.approx(waits) == [2.0, 4.0, 8.0]


def test_success_closes_the_breaker_and_ends_the_delay(breaker):
    breaker.failed(Recovery.OPERATOR, NOW)
    assert breaker.open_s(NOW + 2) == 2.0
    assert breaker.succeeded(NOW + 2)
    assert (breaker.state(NOW + 2), breaker.failure_count, breaker.open_s(NOW + 3)) == (BreakerState.CLOSED, 0, 0.0)
    assert breaker.retry_at <= NOW + 2
    assert not breaker.succeeded(NOW + 3)


def test_failure_soon_after_a_success_opens_the_breaker_at_once(breaker):
    now = fail_until_open(breaker)
    breaker.succeeded(now + 2)
    assert breaker.failed(Recovery.RETRY, now + 2 + HEALTHY_AFTER_S - 1)


def test_failure_later_after_a_success_has_its_fast_tries(breaker):
    now = fail_until_open(breaker)
    breaker.succeeded(now + 2)
    assert not breaker.failed(Recovery.RETRY, now + 2 + HEALTHY_AFTER_S)


def test_reset_forgets_all_failures(breaker):
    fail_until_open(breaker)
    assert breaker.reset()
    assert not breaker.reset()
    assert (breaker.state(NOW), breaker.retry_at, breaker.failure_count) == (BreakerState.CLOSED, 0.0, 0)


def test_dials_for_clients_begin_a_second_apart(breaker):
    assert breaker.shared_dial_from <= NOW
    breaker.client_dial_began(NOW)
    assert breaker.shared_dial_from == NOW + SHARE_S
