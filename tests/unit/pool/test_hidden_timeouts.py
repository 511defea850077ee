"""Undocumented timeouts: reported once, when chance can no longer be the cause."""

import pytest

from pomagent.pool.hidden_timeouts import MIN_S, TIMES, HiddenTimeout, HiddenTimeouts


def report(timeouts: HiddenTimeouts, *pairs: tuple[float, float]) -> list[str]:
    """Record closes after these idle times and ages, and return what is reported."""
    return [str(timeout) for idle_s, age_s in pairs if (timeout := timeouts.note(idle_s, age_s))]


def test_repeated_idle_time_is_reported_once():
    timeouts = HiddenTimeouts()
    reported = report(timeouts, *[(300.0 + n / 10, 400.0 * n) for n in range(1, 3 * TIMES)])
    assert reported == [
        "check the route's idle_timeout at the gateway, and those of the server and of any load balancer: "
        "6 tunnels in a row were closed after 300 s without a byte"
    ]
    assert timeouts.found is not None
    assert timeouts.found.kind == "idle"


def test_repeated_age_is_reported():
    reported = report(HiddenTimeouts(), *[(n * 7.0, 3600.0) for n in range(1, TIMES + 1)])
    assert reported == [
        "check the gateway's timeout_write, and the server's own limit: "
        "6 tunnels in a row were closed at the age of 3600 s"
    ]


def test_unused_tunnel_is_idle_all_its_life():
    assert report(HiddenTimeouts(), *[(60.0, 60.0)] * TIMES)[0].endswith("after 60 s without a byte")


@pytest.mark.parametrize("count", [1, TIMES - 1])
def test_few_closes_may_be_chance(count):
    assert report(HiddenTimeouts(), *[(300.0, 300.0)] * count) == []


def test_different_time_restarts_the_count():
    timeouts = HiddenTimeouts()
    assert report(timeouts, *[(300.0, 300.0)] * (TIMES - 1), (20.0, 20.0), *[(300.0, 300.0)] * (TIMES - 1)) == []
    assert len(report(timeouts, (300.0, 300.0))) == 1


@pytest.mark.parametrize(("seconds", "count"), [(MIN_S - 0.1, 0), (MIN_S, 1)])
def test_immediate_closes_are_not_counted(seconds, count):
    assert len(report(HiddenTimeouts(), *[(seconds, seconds)] * TIMES)) == count


def test_later_timeout_is_reported_too():
    reported = report(HiddenTimeouts(), *[(300.0, 300.0)] * TIMES, *[(60.0, 60.0)] * TIMES)
    assert [sentence.rpartition("after ")[2] for sentence in reported] == [
        "300 s without a byte",
        "60 s without a byte",
    ]


def test_random_closes_are_not_reported():
    assert report(HiddenTimeouts(), *[(10.0 * 1.3**n, 20.0 * 1.4**n) for n in range(20)]) == []


def test_equal_timeouts_compare_equal():
    assert HiddenTimeout("idle", 300.0) == HiddenTimeout("idle", 300.0)
