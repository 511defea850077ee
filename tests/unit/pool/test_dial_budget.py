"""Dials of one route: enough for the waiting clients and the missing tunnels, never more than the limit."""

import pytest

from pomagent.pool.dial_budget import MAX_DIALS_PER_ROUTE, MAX_REFILLS_PER_ROUTE, NO_DIALS, DialBudget


def test_each_waiting_client_needs_one_dial():
    assert NO_DIALS.needed_by_clients(3) == 3
    assert DialBudget(client_count=2).needed_by_clients(3) == 1


@pytest.mark.parametrize("waiting", [MAX_DIALS_PER_ROUTE - 1, MAX_DIALS_PER_ROUTE, MAX_DIALS_PER_ROUTE + 1])
def test_clients_get_no_more_dials_than_the_limit(waiting):
    assert NO_DIALS.needed_by_clients(waiting) == min(waiting, MAX_DIALS_PER_ROUTE)


def test_refills_under_way_count_towards_the_limit():
    assert DialBudget(refill_count=4).needed_by_clients(100) == MAX_DIALS_PER_ROUTE - 4


def test_refills_leave_room_for_clients():
    assert NO_DIALS.needed_by_refills(100, 0) == MAX_REFILLS_PER_ROUTE


def test_refills_use_only_the_room_that_clients_leave():
    assert DialBudget(client_count=MAX_DIALS_PER_ROUTE - 1).needed_by_refills(100, MAX_DIALS_PER_ROUTE) == 1


def test_refills_under_way_are_not_begun_again():
    assert DialBudget(refill_count=2).needed_by_refills(3, 0) == 1


def test_dials_whose_clients_have_left_count_as_refills():
    assert DialBudget(client_count=3).needed_by_refills(4, 0) == 1


def test_surplus_tunnels_need_no_refill():
    assert NO_DIALS.needed_by_refills(-2, 0) == 0


@pytest.mark.parametrize(("client_count", "waiting", "expected"), [(2, 2, False), (3, 2, True), (1, 0, True)])
def test_surplus_dial_may_fail_without_refusing_a_client(client_count, waiting, expected):
    assert DialBudget(client_count).suffices_without_one(waiting) is expected


def test_begun_and_ended_dials_are_counted_by_purpose():
    budget = NO_DIALS.with_client(1).with_client(1).with_refill(1).with_client(-1)
    assert budget == DialBudget(client_count=1, refill_count=1)


@pytest.mark.parametrize(("count", "expected"), [(MAX_DIALS_PER_ROUTE - 1, True), (MAX_DIALS_PER_ROUTE, False)])
def test_room_ends_at_the_limit(count, expected):
    assert DialBudget(count - 2, 2).has_room is expected
