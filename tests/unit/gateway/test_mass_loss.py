"""Bursts of losses, their cause, and the spread of their replacement."""

import pytest

from pomagent.gateway.mass_loss import LONGEST_S, MANY, MOST_SPREAD_S, QUIET_S, REFILLS_PER_S, Losses

NOW = 1000.0


def lost(*ends: tuple[str, float, float]) -> Losses:
    """Each loss has a route, an age, and its seconds after the first."""
    losses = Losses()
    for route, age_s, after_s in ends:
        losses.note(route, age_s, NOW + after_s)
    return losses


def test_losses_within_a_moment_are_one_burst():
    losses = lost(("a", 5.0, 0.0), ("b", 50.0, 0.2), ("a", 7.0, 0.5))
    assert losses.burst is not None
    assert (losses.burst.count, losses.burst.routes, losses.burst.within_ms) == (3, {"a", "b"}, 500)


@pytest.mark.parametrize(("pause_s", "count"), [(QUIET_S - 0.01, 2), (QUIET_S, 1)])
def test_quiet_second_ends_a_burst(pause_s, count):
    burst = lost(("a", 5.0, 0.0), ("a", 5.0, pause_s)).burst
    assert burst is not None
    assert burst.count == count


def test_burst_has_a_maximum_duration():
    losses = lost(*[("a", 5.0, n / 2) for n in range(int(4 * LONGEST_S))])
    assert losses.burst is not None
    assert losses.burst.last - losses.burst.began < LONGEST_S
    assert losses.total == 4 * LONGEST_S


@pytest.mark.parametrize(("count", "expected"), [(MANY - 1, False), (MANY, True)])
def test_burst_has_a_minimum_count(count, expected):
    burst = lost(*[("a", 5.0, 0.0)] * count).burst
    assert burst is not None
    assert burst.is_many is expected


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([("a", 5.0, 0.0), ("b", 50.0, 0.0)], True),
        ([("a", 5.0, 0.0), ("a", 50.0, 0.0)], False),
        ([("a", 10.0, 0.0), ("b", 10.9, 0.0)], False),
        ([("a", 60.0, 0.0), ("b", 50.0, 0.0)], False),
        ([], False),
    ],
    ids=["other routes, other ages", "one route", "one age", "nearly one age", "nothing"],
)
def test_different_ages_on_several_routes_point_to_the_gateway(ends, expected):
    assert lost(*ends).caused_by_gateway(NOW + 1.0) is expected


def test_old_burst_is_not_the_cause():
    assert not lost(("a", 5.0, 0.0), ("b", 50.0, 0.0)).caused_by_gateway(NOW + 3 * QUIET_S)


@pytest.mark.parametrize(
    ("count", "spread_s"),
    [(MANY - 1, 0.0), (MANY, MANY / REFILLS_PER_S), (200, 200 / REFILLS_PER_S), (100_000, MOST_SPREAD_S)],
)
def test_replacements_are_spread_by_the_number_of_losses(count, spread_s):
    losses = lost(*[("a", 5.0, 0.0)] * count)
    assert losses.spread_s(NOW + 0.1) == spread_s
    assert losses.spread_s(NOW + QUIET_S) == 0.0


def test_without_losses_there_is_nothing_to_spread():
    assert Losses().spread_s(NOW) == 0.0


@pytest.mark.parametrize(("after_s", "expected"), [(-0.1, False), (0.0, True), (0.5, True)])
def test_failed_dial_after_a_loss_points_to_the_gateway(after_s, expected):
    """One that crashes every minute ends tunnels of one age, of a single route perhaps."""
    losses = Losses()
    if after_s < 0:
        losses.refused(NOW + after_s)
    losses.note("a", 60.0, NOW)
    if after_s >= 0:
        losses.refused(NOW + after_s)
    assert losses.caused_by_gateway(NOW + 1.0) is expected
