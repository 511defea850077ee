"""A server's habit of ending tunnels that nobody uses, and what is none."""

import pytest

from pomagent.pool.early_closes import FORGET_S, MANY, WAVE_S, WAVES, WAVES_ALIKE, EarlyEnds

NOW = 1000.0


def wave(
    ends: EarlyEnds, age_s: float, at: float, count: int = 1, *, gateway: bool = False, trial: bool = False
) -> bool:
    """So many tunnels end at that moment and age; whether that proves a habit."""
    for _ in range(count):
        ends.note(age_s, at)
    return ends.judge(was_the_gateway=gateway, is_on_trial=trial)


def test_a_wave_is_judged_a_moment_after_it_began():
    ends = EarlyEnds()
    assert ends.due_at is None
    ends.note(10.0, NOW)
    ends.note(10.0, NOW + 0.5)
    assert ends.due_at == NOW + WAVE_S
    ends.judge(was_the_gateway=False, is_on_trial=False)
    assert ends.due_at is None


def test_the_same_age_again_and_again_is_a_habit():
    ends = EarlyEnds()
    assert [wave(ends, 10.0 + n / 10, NOW + 11 * n) for n in range(WAVES_ALIKE)] == [False] * (WAVES_ALIKE - 1) + [True]


def test_different_ages_take_longer_to_prove_it():
    ends = EarlyEnds()
    ages = [10.0, 100.0] * WAVES
    assert [wave(ends, ages[n], NOW + 200 * n) for n in range(WAVES)] == [False] * (WAVES - 1) + [True]


def test_many_at_the_same_age_twice_are_enough():
    """Before MySQL has counted a hundred of them."""
    ends = EarlyEnds()
    assert not wave(ends, 10.0, NOW, count=MANY // 2)
    assert wave(ends, 10.0, NOW + 11, count=MANY - MANY // 2)


def test_many_at_once_are_one_wave():
    assert not wave(EarlyEnds(), 10.0, NOW, count=10 * MANY)


def test_what_happened_to_other_routes_too_is_no_habit_of_this_one():
    ends = EarlyEnds()
    assert not any(wave(ends, 10.0, NOW + 11 * n, gateway=True) for n in range(10))


def test_a_tunnel_that_lived_proves_the_contrary():
    ends = EarlyEnds()
    for n in range(10):
        assert not wave(ends, 10.0, NOW + 100 * n)
        assert not wave(ends, 10.0, NOW + 100 * n + 50)
        ends.lived(20.0)


def test_one_that_lived_less_long_proves_nothing():
    """Ages are jittered: some are below the server's limit, and some are above."""
    ends = EarlyEnds()
    verdicts = []
    for n in range(WAVES_ALIKE):
        ends.lived(8.0)
        verdicts.append(wave(ends, 10.0, NOW + 100 * n))
    assert verdicts[-1]


@pytest.mark.parametrize(("pause_s", "expected"), [(FORGET_S, True), (FORGET_S + 1, False)])
def test_waves_long_ago_are_forgotten(pause_s, expected):
    ends = EarlyEnds()
    assert [wave(ends, 10.0, NOW + pause_s * n) for n in range(WAVES_ALIKE)][-1] is expected


def test_on_trial_once_is_enough():
    assert wave(EarlyEnds(), 10.0, NOW, trial=True)


def test_a_verdict_starts_afresh():
    ends = EarlyEnds()
    assert wave(ends, 10.0, NOW, trial=True)
    assert not wave(ends, 10.0, NOW + 11)


def test_nothing_that_ended_is_no_habit():
    assert not EarlyEnds().judge(was_the_gateway=False, is_on_trial=True)


def test_a_second_wave_is_suspicious_as_long_as_it_is_open():
    ends = EarlyEnds()
    ends.note(10.0, NOW)
    assert not ends.is_suspicious
    ends.judge(was_the_gateway=False, is_on_trial=False)
    assert not ends.is_suspicious
    ends.note(10.0, NOW + 11)
    assert ends.is_suspicious


class TestWhatMayBeRisked:
    def test_is_anything_as_long_as_nothing_has_ended(self):
        assert EarlyEnds().most(NOW) is None

    @pytest.mark.parametrize(("count", "most"), [(1, MANY - 1), (4, MANY - 4), (MANY, 1), (3 * MANY, 1)])
    def test_is_the_rest_of_what_a_habit_may_cost(self, count, most):
        ends = EarlyEnds()
        wave(ends, 10.0, NOW, count=count)
        assert ends.most(NOW + 1) == most

    def test_is_anything_again_once_a_tunnel_has_lived_or_long_after(self):
        ends = EarlyEnds()
        wave(ends, 10.0, NOW, count=MANY)
        assert ends.most(NOW + FORGET_S + 1) is None
        ends.lived(20.0)
        assert ends.most(NOW + 1) is None

    @pytest.mark.parametrize("depth", [1, 4, 29, 50, 90])
    def test_keeps_a_habit_below_what_mysql_bears_whatever_the_depth(self, depth):
        ends, now, cost, is_habit = EarlyEnds(), NOW, 0, False
        while not is_habit:
            most = ends.most(now)
            count = depth if most is None else min(depth, most)
            cost, now = cost + count, now + 11
            is_habit = wave(ends, 10.0, now, count=count)
        assert cost < 100
