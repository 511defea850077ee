"""Dials of one route: enough for who waits and what is missing, never more than the cap."""

import pytest

from pomagent.pool.dial_budget import MAX_DIALS_PER_ROUTE, MAX_REFILLS_PER_ROUTE, DialBudget


def under_way(by_clients: int = 0, by_stock: int = 0) -> DialBudget:
    dials = DialBudget()
    dials.by_clients, dials.by_stock = by_clients, by_stock
    return dials


def test_one_for_each_client_that_waits():
    assert under_way().wanted_by_clients(3) == 3
    assert under_way(by_clients=2).wanted_by_clients(3) == 1


@pytest.mark.parametrize("waiting", [MAX_DIALS_PER_ROUTE - 1, MAX_DIALS_PER_ROUTE, MAX_DIALS_PER_ROUTE + 1])
def test_clients_never_get_more_than_the_cap(waiting):
    assert under_way().wanted_by_clients(waiting) == min(waiting, MAX_DIALS_PER_ROUTE)


def test_refills_under_way_count_to_the_cap():
    assert under_way(by_stock=4).wanted_by_clients(100) == MAX_DIALS_PER_ROUTE - 4


def test_refills_leave_places_to_clients():
    assert under_way().wanted_by_stock(100, 0) == MAX_REFILLS_PER_ROUTE


def test_refills_take_only_what_clients_left():
    assert under_way(by_clients=MAX_DIALS_PER_ROUTE - 1).wanted_by_stock(100, MAX_DIALS_PER_ROUTE) == 1


def test_what_is_under_way_is_not_ordered_again():
    assert under_way(by_stock=2).wanted_by_stock(3, 0) == 1


def test_dials_whose_clients_left_fill_the_stock():
    assert under_way(by_clients=3).wanted_by_stock(4, 0) == 1


def test_a_surplus_is_not_a_negative_wish():
    assert under_way().wanted_by_stock(-2, 0) == 0


@pytest.mark.parametrize(("by_clients", "waiting", "expected"), [(2, 2, False), (3, 2, True), (1, 0, True)])
def test_a_failure_is_nobodys_while_the_other_dials_suffice(by_clients, waiting, expected):
    assert under_way(by_clients).suffice_without_one(waiting) is expected
