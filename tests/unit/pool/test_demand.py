"""How much should be warm: about twice what is taken until a refill is there."""

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


def test_it_is_the_minimum_while_nothing_is_taken():
    assert Demand(2, 4).target(NOW) == 2


@pytest.mark.parametrize(("takes", "expected"), [(0, 1), (1, 2), (2, 4), (5, 10), (6, 10)])
def test_it_is_twice_the_takes_of_one_dial_within_the_bounds(takes, expected):
    demand = Demand(1, 10)
    demand.dial_took(0.5)
    for _ in range(takes):
        demand.note_lease(NOW)
    assert demand.target(NOW + 0.4) == expected


def test_what_was_needed_is_held_for_a_while(demand_of_a_burst):
    assert demand_of_a_burst.target(NOW + HOLD_S - 0.001) == 10
    assert demand_of_a_burst.target(NOW + HOLD_S + 0.001) == 1


def test_single_takes_meanwhile_do_not_shorten_that_nor_prolong_it(demand_of_a_burst):
    demand_of_a_burst.note_lease(NOW + 30)
    assert demand_of_a_burst.target(NOW + HOLD_S - 0.001) == 10
    assert demand_of_a_burst.target(NOW + HOLD_S + 0.001) == 1
    demand_of_a_burst.note_lease(NOW + HOLD_S)
    assert demand_of_a_burst.target(NOW + HOLD_S) == 2
    assert demand_of_a_burst.target(NOW + HOLD_S + 1) == 1


def test_takes_longer_ago_than_a_refill_takes_are_no_burst():
    demand = Demand(1, 10)
    demand.dial_took(0.5)
    for number in range(5):
        demand.note_lease(NOW + number)
    assert demand.target(NOW + 5) == 1


def test_takes_count_even_where_a_dial_is_quicker_than_the_delay_of_the_refill():
    demand = Demand(1, 10)
    demand.dial_took(0.002)
    for _ in range(3):
        demand.note_lease(NOW)
    assert demand.target(NOW + REFILL_DELAY_S) == 6


def test_the_duration_of_a_dial_is_a_moving_average():
    demand = Demand(1, 4)
    demand.dial_took(1.0)
    assert demand.dial_s == 1.0
    demand.dial_took(2.0)
    assert demand.dial_s == pytest.approx(1.2)


@pytest.mark.parametrize(("dial_s", "expected"), [(0.001, REFILL_DELAY_S), (0.1, 0.05), (10.0, MAX_REFILL_DELAY_S)])
def test_a_refill_follows_a_take_by_half_a_dial_within_the_bounds(dial_s, expected):
    demand = Demand(1, 10)
    demand.dial_took(dial_s)
    assert demand.refill_delay_s == expected
