"""Servers that close unused tunnels as a rule, and closes that prove no such rule."""

import pytest

from pomagent.pool.early_closes import FORGET_S, MAX_LOST, WAVE_S, WAVES, WAVES_ALIKE, EarlyCloses

NOW = 1000.0


def wave(
    closes: EarlyCloses, age_s: float, at: float, count: int = 1, *, gateway: bool = False, trial: bool = False
) -> bool:
    """Close this many tunnels at this moment and age, and return whether that proves a rule."""
    for _ in range(count):
        closes.note(age_s, at)
    return closes.judge(was_the_gateway=gateway, is_on_trial=trial)


def test_wave_is_judged_a_moment_after_it_began():
    closes = EarlyCloses()
    assert closes.due_at is None
    closes.note(10.0, NOW)
    closes.note(10.0, NOW + 0.5)
    assert closes.due_at == NOW + WAVE_S
    closes.judge(was_the_gateway=False, is_on_trial=False)
    assert closes.due_at is None


def test_repeated_closes_at_one_age_prove_a_rule():
    closes = EarlyCloses()
    assert [wave(closes, 10.0 + n / 10, NOW + 11 * n) for n in range(WAVES_ALIKE)] == [False] * (WAVES_ALIKE - 1) + [
        True
    ]


def test_closes_at_different_ages_take_longer_to_prove_a_rule():
    closes = EarlyCloses()
    ages = [10.0, 100.0] * WAVES
    assert [wave(closes, ages[n], NOW + 200 * n) for n in range(WAVES)] == [False] * (WAVES - 1) + [True]


def test_two_large_waves_at_one_age_prove_a_rule():
    """Before MySQL has counted a hundred of them."""
    closes = EarlyCloses()
    assert not wave(closes, 10.0, NOW, count=MAX_LOST // 2)
    assert wave(closes, 10.0, NOW + 11, count=MAX_LOST - MAX_LOST // 2)


def test_closes_at_one_moment_are_one_wave():
    assert not wave(EarlyCloses(), 10.0, NOW, count=10 * MAX_LOST)


def test_closes_that_other_routes_share_prove_nothing():
    closes = EarlyCloses()
    assert not any(wave(closes, 10.0, NOW + 11 * n, gateway=True) for n in range(10))


def test_tunnel_that_reached_its_age_disproves_the_rule():
    closes = EarlyCloses()
    for n in range(10):
        assert not wave(closes, 10.0, NOW + 100 * n)
        assert not wave(closes, 10.0, NOW + 100 * n + 50)
        closes.lived(20.0)


def test_tunnel_that_lived_less_long_disproves_nothing():
    """Ages are jittered: some are below the server's limit, others above it."""
    closes = EarlyCloses()
    verdicts = []
    for n in range(WAVES_ALIKE):
        closes.lived(8.0)
        verdicts.append(wave(closes, 10.0, NOW + 100 * n))
    assert verdicts[-1]


@pytest.mark.parametrize(("pause_s", "expected"), [(FORGET_S, True), (FORGET_S + 1, False)])
def test_old_waves_are_forgotten(pause_s, expected):
    closes = EarlyCloses()
    assert [wave(closes, 10.0, NOW + pause_s * n) for n in range(WAVES_ALIKE)][-1] is expected


def test_single_wave_is_enough_on_trial():
    assert wave(EarlyCloses(), 10.0, NOW, trial=True)


def test_verdict_forgets_the_waves():
    closes = EarlyCloses()
    assert wave(closes, 10.0, NOW, trial=True)
    assert not wave(closes, 10.0, NOW + 11)


def test_verdict_without_a_wave_is_negative():
    assert not EarlyCloses().judge(was_the_gateway=False, is_on_trial=True)


def test_second_wave_is_suspicious_while_it_is_open():
    closes = EarlyCloses()
    closes.note(10.0, NOW)
    assert not closes.is_suspicious
    closes.judge(was_the_gateway=False, is_on_trial=False)
    assert not closes.is_suspicious
    closes.note(10.0, NOW + 11)
    assert closes.is_suspicious


class TestRisk:
    def test_risk_is_unlimited_before_the_first_close(self):
        assert EarlyCloses().max_count(NOW) is None

    @pytest.mark.parametrize(
        ("count", "most"), [(1, MAX_LOST - 1), (4, MAX_LOST - 4), (MAX_LOST, 1), (3 * MAX_LOST, 1)]
    )
    def test_risk_is_what_remains_of_the_tunnels_to_lose(self, count, most):
        closes = EarlyCloses()
        wave(closes, 10.0, NOW, count=count)
        assert closes.max_count(NOW + 1) == most

    def test_risk_is_unlimited_again_after_a_long_life_or_a_long_time(self):
        closes = EarlyCloses()
        wave(closes, 10.0, NOW, count=MAX_LOST)
        assert closes.max_count(NOW + FORGET_S + 1) is None
        closes.lived(20.0)
        assert closes.max_count(NOW + 1) is None

    @pytest.mark.parametrize("depth", [1, 4, 29, 50, 90])
    def test_risk_stays_below_the_limit_of_mysql_at_any_depth(self, depth):
        closes, now, cost, is_rule = EarlyCloses(), NOW, 0, False
        while not is_rule:
            most = closes.max_count(now)
            count = depth if most is None else min(depth, most)
            cost, now = cost + count, now + 11
            is_rule = wave(closes, 10.0, now, count=count)
        assert cost < 100
