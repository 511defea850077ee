"""How many tunnels should be warm: twice the leases until a refill is ready."""

import pytest

from pomagent.pool.demand import HOLD_S, MAX_REFILL_DELAY_S, REFILL_DELAY_S, Demand

NOW = 1000.0


@pytest.fixture
def demand_of_a_burst() -> Demand:
    demand = Demand(1, 10)
    demand.dial_took(0.5)
    for _ in range(5):
        demand.note_lease(NOW)
    return demand


def test_target_is_the_minimum_without_leases():
    assert Demand(2, 4).target(NOW) == 2


@pytest.mark.parametrize(("leases", "expected"), [(0, 1), (1, 2), (2, 4), (5, 10), (6, 10)])
def test_target_is_twice_the_leases_during_one_dial_within_the_bounds(leases, expected):
    demand = Demand(1, 10)
    demand.dial_took(0.5)
    for _ in range(leases):
        demand.note_lease(NOW)
    assert demand.target(NOW + 0.4) == expected


def test_target_of_a_burst_is_held_for_a_while(demand_of_a_burst):
    assert demand_of_a_burst.target(NOW + HOLD_S - 0.001) == 10
    assert demand_of_a_burst.target(NOW + HOLD_S + 0.001) == 1


def test_single_leases_neither_shorten_nor_prolong_the_hold(demand_of_a_burst):
    demand_of_a_burst.note_lease(NOW + 30)
    assert demand_of_a_burst.target(NOW + HOLD_S - 0.001) == 10
    assert demand_of_a_burst.target(NOW + HOLD_S + 0.001) == 1
    demand_of_a_burst.note_lease(NOW + HOLD_S)
    assert demand_of_a_burst.target(NOW + HOLD_S) == 2
    assert demand_of_a_burst.target(NOW + HOLD_S + 1) == 1


def test_leases_further_apart_than_a_refill_leases_are_no_burst():
    demand = Demand(1, 10)
    demand.dial_took(0.5)
    for number in range(5):
        demand.note_lease(NOW + number)
    assert demand.target(NOW + 5) == 1


def test_leases_count_although_a_dial_is_quicker_than_the_refill_delay():
    demand = Demand(1, 10)
    demand.dial_took(0.002)
    for _ in range(3):
        demand.note_lease(NOW)
    assert demand.target(NOW + REFILL_DELAY_S) == 6


def test_dial_duration_is_a_moving_average():
    demand = Demand(1, 4)
    demand.dial_took(1.0)
    assert demand.dial_s == 1.0
    demand.dial_took(2.0)
    assert demand.dial_s == pytest.approx(1.2)


@pytest.mark.parametrize(("dial_s", "expected"), [(0.001, REFILL_DELAY_S), (0.1, 0.05), (10.0, MAX_REFILL_DELAY_S)])
def test_refill_delay_is_half_a_dial_within_the_bounds(dial_s, expected):
    demand = Demand(1, 10)
    demand.dial_took(dial_s)
    assert demand.refill_delay_s == expected
