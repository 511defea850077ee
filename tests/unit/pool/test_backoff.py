"""The delay after a failure: by kind, by streak, and by what the gateway asks for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pomagent.errors import Recovery
from pomagent.pool.backoff import FAST_DELAY_S, HEALTHY_AFTER_S, RETRY_AFTER_CAP_S, SCHEDULES, Backoff
from tests.fakes.clock import FakeDice

LONGEST = FakeDice(1.0)
SHORTEST = FakeDice(0.0)


def fail_again_and_again(backoff: Backoff, recovery: Recovery, times: int, dial_s: float = 0.0) -> list[float]:
    """Return the delays of a pool that dials as soon as it may and fails ``dial_s`` later."""
    now, delays = 1000.0, []
    for _ in range(times):
        delays.append(backoff.failed(recovery, now))
        now += delays[-1] + dial_s
    return delays


@pytest.mark.parametrize(
    ("recovery", "longest"),
    [
        (Recovery.RETRY, [0.3, 0.3, 0.3, 1, 2, 4, 8, 16, 30, 30]),
        (Recovery.REAUTHENTICATE, [5, 10, 20, 40, 60, 60]),
        (Recovery.OPERATOR, [5, 10, 20, 40, 80, 160, 300, 300]),
    ],
)
def test_each_kind_of_failure_has_its_schedule(recovery, longest):
    assert longest == pytest.approx(fail_again_and_again(Backoff(LONGEST), recovery, len(longest)))


def test_every_recovery_has_a_schedule():
    assert set(Recovery) == set(SCHEDULES)


def test_fast_tries_are_jittered_by_half_and_later_ones_by_nearly_all():
    delays = fail_again_and_again(Backoff(SHORTEST), Recovery.RETRY, 9)
    assert pytest.approx(delays) == [0.1, 0.1, 0.1, 0.1, 0.2, 0.4, 0.8, 1.6, 3.0]


def test_failures_of_one_wave_count_once():
    backoff = Backoff(LONGEST)
    first = backoff.failed(Recovery.RETRY, 1000.0)
    assert backoff.failed(Recovery.OPERATOR, 1000.1) == pytest.approx(first - 0.1)
    assert backoff.failure_count == 1
    assert backoff.retry_at == pytest.approx(1000.0 + first)


def test_failure_at_the_end_of_the_delay_counts_as_the_next():
    backoff = Backoff(LONGEST)
    backoff.failed(Recovery.RETRY, 1000.0)
    backoff.failed(Recovery.RETRY, backoff.retry_at)
    assert backoff.failure_count == 2


class TestRetryAfter:
    def test_longer_delay_that_the_gateway_asks_for_is_kept(self):
        backoff = Backoff(LONGEST)
        assert backoff.failed(Recovery.RETRY, 1000.0, at_least_s=7.0) == 7.0
        assert backoff.retry_at == 1007.0

    def test_shorter_delay_that_the_gateway_asks_for_changes_nothing(self):
        assert Backoff(LONGEST).failed(Recovery.REAUTHENTICATE, 1000.0, at_least_s=1.0) == 5.0

    def test_request_during_a_delay_prolongs_it(self):
        backoff = Backoff(LONGEST)
        backoff.failed(Recovery.RETRY, 1000.0)
        assert backoff.failed(Recovery.RETRY, 1000.1, at_least_s=60.0) == 60.0
        assert backoff.retry_at == pytest.approx(1060.1)
        assert backoff.failure_count == 1

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [(RETRY_AFTER_CAP_S - 1, 299.0), (RETRY_AFTER_CAP_S, 300.0), (RETRY_AFTER_CAP_S + 1, 300.0)],
    )
    def test_gateway_cannot_ask_for_more_than_the_cap(self, asked, expected):
        assert Backoff(LONGEST).failed(Recovery.RETRY, 1000.0, at_least_s=asked) == expected


class TestStreak:
    def test_success_and_ten_quiet_seconds_begin_a_new_streak(self):
        backoff = Backoff(LONGEST)
        fail_again_and_again(backoff, Recovery.RETRY, 5)
        backoff.succeeded(2000.0)
        backoff.failed(Recovery.RETRY, 2000.0 + HEALTHY_AFTER_S)
        assert backoff.failure_count == 1

    def test_failure_sooner_after_a_success_continues_the_streak(self):
        backoff = Backoff(LONGEST)
        fail_again_and_again(backoff, Recovery.RETRY, 5)
        backoff.succeeded(2000.0)
        backoff.failed(Recovery.RETRY, 2000.0 + HEALTHY_AFTER_S - 0.1)
        assert backoff.failure_count == 6

    def test_further_successes_do_not_postpone_the_end_of_the_streak(self):
        backoff = Backoff(LONGEST)
        fail_again_and_again(backoff, Recovery.RETRY, 5)
        backoff.succeeded(2000.0)
        backoff.succeeded(2009.0)
        backoff.failed(Recovery.RETRY, 2010.0)
        assert backoff.failure_count == 1

    def test_success_before_the_last_failure_ends_no_streak(self):
        backoff = Backoff(LONGEST)
        backoff.succeeded(1000.0)
        backoff.failed(Recovery.RETRY, 1001.0)
        backoff.failed(Recovery.RETRY, 1100.0)
        assert backoff.failure_count == 2

    def test_dials_that_fail_slower_than_the_quiet_time_still_back_off(self):
        """The gateway takes 10 s to fail for a firewalled database, every time."""
        delays = fail_again_and_again(Backoff(LONGEST), Recovery.RETRY, 9, dial_s=HEALTHY_AFTER_S + 0.5)
        assert pytest.approx(delays) == [0.3, 0.3, 0.3, 1, 2, 4, 8, 16, 30]

    def test_reset_forgets_delay_and_streak(self):
        backoff = Backoff(LONGEST)
        fail_again_and_again(backoff, Recovery.RETRY, 5)
        backoff.reset()
        assert (backoff.failure_count, backoff.retry_at) == (0, 0.0)
        assert backoff.failed(Recovery.RETRY, 1000.0) == pytest.approx(0.3)


class TestEarlyCloses:
    def test_young_tunnel_that_closes_counts_as_a_failure(self):
        backoff = Backoff(LONGEST)
        backoff.closed_early(HEALTHY_AFTER_S - 0.1, 1000.0)
        assert (backoff.failure_count, backoff.retry_at) == (1, pytest.approx(1000.3))

    def test_old_tunnel_that_closes_ends_the_streak(self):
        backoff = Backoff(LONGEST)
        backoff.failed(Recovery.RETRY, 1000.0)
        backoff.closed_early(HEALTHY_AFTER_S, 1001.0)
        assert (backoff.failure_count, backoff.retry_at) == (0, 0.0)

    def test_old_tunnel_that_closes_in_an_outage_does_not_end_the_delay(self):
        backoff = Backoff(LONGEST)
        backoff.failed(Recovery.OPERATOR, 1000.0)
        backoff.closed_early(100.0, 1001.0)
        assert (backoff.failure_count, backoff.retry_at) == (1, 1005.0)

    def test_tunnels_that_always_close_young_are_opened_ever_more_rarely(self):
        backoff, now, waits = Backoff(LONGEST), 1000.0, []
        for _ in range(9):
            backoff.succeeded(now)
            now += 5.0
            backoff.closed_early(5.0, now)
            waits.append(backoff.retry_at - now)
            now = backoff.retry_at
        assert pytest.approx(waits) == [0.3, 0.3, 0.3, 1, 2, 4, 8, 16, 30]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["failed", "succeeded", "closed_early", "reset"]),
        st.sampled_from(Recovery),
        st.floats(0, 1000),
        st.floats(0, 1e6),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(history=EVENTS, falls=st.floats(0, 1))
def test_delay_is_always_positive_and_bounded(history, falls):
    backoff, now = Backoff(FakeDice(falls)), 1000.0
    for what, recovery, elapsed, seconds in history:
        now += elapsed
        before = backoff.retry_at
        if what == "failed":
            delay = backoff.failed(recovery, now, at_least_s=seconds)
            assert 0 < delay <= RETRY_AFTER_CAP_S + 1e-6  # sums of floats
            assert backoff.retry_at >= before
            if before <= now:
                assert delay >= FAST_DELAY_S / 2 - 1e-9
        elif what == "succeeded":
            backoff.succeeded(now)
        elif what == "closed_early":
            backoff.closed_early(seconds, now)
        else:
            backoff.reset()
        assert backoff.retry_at <= now + RETRY_AFTER_CAP_S
        assert backoff.failure_count >= 0


def test_delay_can_be_shortened_but_not_prolonged():
    backoff = Backoff(LONGEST)
    backoff.failed(Recovery.OPERATOR, 1000.0)
    backoff.hurry(1010.0)
    assert backoff.retry_at == 1005.0
    backoff.hurry(1001.0)
    assert backoff.retry_at == 1001.0
