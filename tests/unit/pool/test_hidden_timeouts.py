"""A limit that nobody has told us: named once, when chance cannot be it any more."""

import pytest

from pomagent.pool.hidden_timeouts import MIN_S, TIMES, HiddenTimeout, HiddenTimeouts


def ends(periods: HiddenTimeouts, *pairs: tuple[float, float]) -> list[str]:
    """Of each: idle time, age; what is said."""
    return [str(period) for idle_s, age_s in pairs if (period := periods.note(idle_s, age_s))]


def test_the_same_idle_time_again_and_again_is_named_once():
    periods = HiddenTimeouts()
    said = ends(periods, *[(300.0 + n / 10, 400.0 * n) for n in range(1, 3 * TIMES)])
    assert said == [
        "ended after 300 s idle 6 times in a row: the route's idle_timeout at the gateway, the server's own, "
        "or a balancer's?"
    ]
    assert periods.found is not None
    assert periods.found.kind == "idle"


def test_so_is_the_same_age():
    said = ends(HiddenTimeouts(), *[(n * 7.0, 3600.0) for n in range(1, TIMES + 1)])
    assert said == [
        "ended at the age of 3600 s 6 times in a row: the gateway's timeout_write, or a limit of the server?"
    ]


def test_a_tunnel_that_was_never_used_is_idle_all_its_life():
    assert ends(HiddenTimeouts(), *[(60.0, 60.0)] * TIMES)[0].startswith("ended after 60 s idle")


@pytest.mark.parametrize("count", [1, TIMES - 1])
def test_fewer_may_be_chance(count):
    assert ends(HiddenTimeouts(), *[(300.0, 300.0)] * count) == []


def test_one_that_differs_starts_the_count_anew():
    periods = HiddenTimeouts()
    assert ends(periods, *[(300.0, 300.0)] * (TIMES - 1), (20.0, 20.0), *[(300.0, 300.0)] * (TIMES - 1)) == []
    assert len(ends(periods, (300.0, 300.0))) == 1


@pytest.mark.parametrize(("seconds", "count"), [(MIN_S - 0.1, 0), (MIN_S, 1)])
def test_what_ends_at_once_is_no_period(seconds, count):
    assert len(ends(HiddenTimeouts(), *[(seconds, seconds)] * TIMES)) == count


def test_another_period_later_is_named_too():
    said = ends(HiddenTimeouts(), *[(300.0, 300.0)] * TIMES, *[(60.0, 60.0)] * TIMES)
    assert [sentence.partition(" s ")[0] for sentence in said] == ["ended after 300", "ended after 60"]


def test_random_ends_are_none():
    assert ends(HiddenTimeouts(), *[(10.0 * 1.3**n, 20.0 * 1.4**n) for n in range(20)]) == []


def test_it_is_a_fact():
    assert HiddenTimeout("idle", 300.0) == HiddenTimeout("idle", 300.0)
