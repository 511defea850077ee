"""When a route's breaker opens and closes, and what it allows meanwhile."""

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
    """Fail as a pool does that dials as soon as it may; the moment when it opened."""
    while not breaker.failed(Recovery.RETRY, now):
        now = breaker.retry_at
    return now


def test_what_time_may_heal_gets_its_fast_tries_first(breaker):
    now = NOW
    for _ in range(FAST_TRIES):
        assert not breaker.failed(Recovery.RETRY, now)
        assert breaker.state(now) is BreakerState.CLOSED
        now = breaker.retry_at
    assert breaker.failed(Recovery.RETRY, now)
    assert (breaker.state(now), breaker.failure_count) == (BreakerState.OPEN, FAST_TRIES + 1)


@pytest.mark.parametrize("recovery", [Recovery.REAUTHENTICATE, Recovery.OPERATOR])
def test_a_verdict_opens_it_at_once(breaker, recovery):
    assert breaker.failed(recovery, NOW)


def test_so_does_a_gateway_that_asks_to_wait(breaker):
    assert breaker.failed(Recovery.RETRY, NOW, at_least_s=30.0)
    assert breaker.retry_at == NOW + 30.0


def test_failures_of_dials_that_began_together_do_not_use_up_the_fast_tries(breaker):
    assert not any(breaker.failed(Recovery.RETRY, NOW) for _ in range(16))
    assert breaker.failure_count == 16


def test_it_opens_once(breaker):
    now = fail_until_open(breaker)
    assert not breaker.failed(Recovery.RETRY, now + 60)


def test_after_the_wait_it_is_half_open_and_a_failure_opens_it_for_longer(breaker):
    fail_until_open(breaker)
    waits = []
    for _ in range(3):
        now = breaker.retry_at
        assert breaker.state(now - 0.01) is BreakerState.OPEN
        assert breaker.state(now) is BreakerState.HALF_OPEN
        breaker.failed(Recovery.RETRY, now)
        waits.append(breaker.retry_at - now)
    assert pytest.approx(waits) == [2.0, 4.0, 8.0]


def test_a_success_closes_it_and_ends_the_wait(breaker):
    breaker.failed(Recovery.OPERATOR, NOW)
    assert breaker.open_s(NOW + 2) == 2.0
    assert breaker.succeeded(NOW + 2)
    assert (breaker.state(NOW + 2), breaker.failure_count, breaker.open_s(NOW + 3)) == (BreakerState.CLOSED, 0, 0.0)
    assert breaker.retry_at <= NOW + 2
    assert not breaker.succeeded(NOW + 3)


def test_one_that_fails_again_soon_opens_it_at_once(breaker):
    now = fail_until_open(breaker)
    breaker.succeeded(now + 2)
    assert breaker.failed(Recovery.RETRY, now + 2 + HEALTHY_AFTER_S - 1)


def test_one_that_fails_again_later_has_its_fast_tries_again(breaker):
    now = fail_until_open(breaker)
    breaker.succeeded(now + 2)
    assert not breaker.failed(Recovery.RETRY, now + 2 + HEALTHY_AFTER_S)


def test_a_reset_forgets_everything(breaker):
    fail_until_open(breaker)
    assert breaker.reset()
    assert not breaker.reset()
    assert (breaker.state(NOW), breaker.retry_at, breaker.failure_count) == (BreakerState.CLOSED, 0.0, 0)


def test_dials_for_clients_begin_a_second_apart(breaker):
    assert breaker.shared_dial_from <= NOW
    breaker.client_dial_began(NOW)
    assert breaker.shared_dial_from == NOW + SHARE_S
