"""A server's habit of ending tunnels that nobody uses, and what is none."""

import pytest

from pomagent.pool.early_closes import FORGET_S, MAX_LOST, WAVE_S, WAVES, WAVES_ALIKE, EarlyCloses

NOW = 1000.0


def wave(
    closes: EarlyCloses, age_s: float, at: float, count: int = 1, *, gateway: bool = False, trial: bool = False
) -> bool:
    """So many tunnels end at that moment and age; whether that proves a habit."""
    for _ in range(count):
        closes.note(age_s, at)
    return closes.judge(was_the_gateway=gateway, is_on_trial=trial)


def test_a_wave_is_judged_a_moment_after_it_began():
    closes = EarlyCloses()
    assert closes.due_at is None
    closes.note(10.0, NOW)
    closes.note(10.0, NOW + 0.5)
    assert closes.due_at == NOW + WAVE_S
    closes.judge(was_the_gateway=False, is_on_trial=False)
    assert closes.due_at is None


def test_the_same_age_again_and_again_is_a_habit():
    closes = EarlyCloses()
    assert [wave(closes, 10.0 + n / 10, NOW + 11 * n) for n in range(WAVES_ALIKE)] == [False] * (WAVES_ALIKE - 1) + [
        True
    ]


def test_different_ages_take_longer_to_prove_it():
    closes = EarlyCloses()
    ages = [10.0, 100.0] * WAVES
    assert [wave(closes, ages[n], NOW + 200 * n) for n in range(WAVES)] == [False] * (WAVES - 1) + [True]


def test_many_at_the_same_age_twice_are_enough():
    """Before MySQL has counted a hundred of them."""
    closes = EarlyCloses()
    assert not wave(closes, 10.0, NOW, count=MAX_LOST // 2)
    assert wave(closes, 10.0, NOW + 11, count=MAX_LOST - MAX_LOST // 2)


def test_many_at_once_are_one_wave():
    assert not wave(EarlyCloses(), 10.0, NOW, count=10 * MAX_LOST)


def test_what_happened_to_other_routes_too_is_no_habit_of_this_one():
    closes = EarlyCloses()
    assert not any(wave(closes, 10.0, NOW + 11 * n, gateway=True) for n in range(10))


def test_a_tunnel_that_lived_proves_the_contrary():
    closes = EarlyCloses()
    for n in range(10):
        assert not wave(closes, 10.0, NOW + 100 * n)
        assert not wave(closes, 10.0, NOW + 100 * n + 50)
        closes.lived(20.0)


def test_one_that_lived_less_long_proves_nothing():
    """Ages are jittered: some are below the server's limit, and some are above."""
    closes = EarlyCloses()
    verdicts = []
    for n in range(WAVES_ALIKE):
        closes.lived(8.0)
        verdicts.append(wave(closes, 10.0, NOW + 100 * n))
    assert verdicts[-1]


@pytest.mark.parametrize(("pause_s", "expected"), [(FORGET_S, True), (FORGET_S + 1, False)])
def test_waves_long_ago_are_forgotten(pause_s, expected):
    closes = EarlyCloses()
    assert [wave(closes, 10.0, NOW + pause_s * n) for n in range(WAVES_ALIKE)][-1] is expected


def test_on_trial_once_is_enough():
    assert wave(EarlyCloses(), 10.0, NOW, trial=True)


def test_a_verdict_starts_afresh():
    closes = EarlyCloses()
    assert wave(closes, 10.0, NOW, trial=True)
    assert not wave(closes, 10.0, NOW + 11)


def test_nothing_that_ended_is_no_habit():
    assert not EarlyCloses().judge(was_the_gateway=False, is_on_trial=True)


def test_a_second_wave_is_suspicious_as_long_as_it_is_open():
    closes = EarlyCloses()
    closes.note(10.0, NOW)
    assert not closes.is_suspicious
    closes.judge(was_the_gateway=False, is_on_trial=False)
    assert not closes.is_suspicious
    closes.note(10.0, NOW + 11)
    assert closes.is_suspicious


class TestWhatMayBeRisked:
    def test_is_anything_as_long_as_nothing_has_ended(self):
        assert EarlyCloses().max_count(NOW) is None

    @pytest.mark.parametrize(
        ("count", "most"), [(1, MAX_LOST - 1), (4, MAX_LOST - 4), (MAX_LOST, 1), (3 * MAX_LOST, 1)]
    )
    def test_is_the_rest_of_what_a_habit_may_cost(self, count, most):
        closes = EarlyCloses()
        wave(closes, 10.0, NOW, count=count)
        assert closes.max_count(NOW + 1) == most

    def test_is_anything_again_once_a_tunnel_has_lived_or_long_after(self):
        closes = EarlyCloses()
        wave(closes, 10.0, NOW, count=MAX_LOST)
        assert closes.max_count(NOW + FORGET_S + 1) is None
        closes.lived(20.0)
        assert closes.max_count(NOW + 1) is None

    @pytest.mark.parametrize("depth", [1, 4, 29, 50, 90])
    def test_keeps_a_habit_below_what_mysql_bears_whatever_the_depth(self, depth):
        closes, now, cost, is_habit = EarlyCloses(), NOW, 0, False
        while not is_habit:
            most = closes.max_count(now)
            count = depth if most is None else min(depth, most)
            cost, now = cost + count, now + 11
            is_habit = wave(closes, 10.0, now, count=count)
        assert cost < 100
