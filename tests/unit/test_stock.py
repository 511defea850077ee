"""What a pool holds, owes and wants: never too much, in order, and nobody forgotten."""

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pomagent.stock import (
    AGE_JITTER,
    MAX_DIALS_PER_ROUTE,
    MAX_REFILLS_PER_ROUTE,
    MAX_WAITING,
    REFILL_DELAY_S,
    Stock,
    StockPolicy,
)
from tests.fakes.clock import FakeDice

NOW = 1000.0


def make(minimum: int = 1, maximum: int = 4, max_age_s: float = 100.0, falls: float = 1.0) -> Stock[str, str]:
    return Stock(StockPolicy(minimum, maximum, max_age_s), FakeDice(falls))


def with_waiters(stock: Stock[str, str], number: int) -> Stock[str, str]:
    for index in range(number):
        stock.wait(f"client-{index}")
    return stock


class TestTunnels:
    def test_the_oldest_is_taken_first_and_each_only_once(self):
        stock = make()
        for name in ("a", "b", "c"):
            stock.put(name, NOW)
        assert [stock.take() for _ in range(4)] == ["a", "b", "c", None]

    def test_one_that_ended_is_forgotten(self):
        stock = make()
        stock.put("a", NOW)
        stock.put("b", NOW)
        assert stock.remove("a")
        assert stock.take() == "b"

    def test_one_that_is_not_there_cannot_be_removed(self):
        assert not make().remove("a")

    def test_tunnels_are_told_apart_by_identity(self):
        first, second = [1], [1]
        stock = Stock(StockPolicy(1, 4, 100.0), FakeDice())
        stock.put(first, NOW)
        stock.put(second, NOW)
        stock.remove(second)
        assert stock.take() is first

    def test_all_can_be_taken_out(self):
        stock = make()
        stock.put("a", NOW)
        stock.put("b", NOW)
        assert stock.empty() == ["a", "b"]
        assert len(stock) == 0

    @pytest.mark.parametrize(("minimum", "maximum", "room"), [(1, 4, 4), (0, 1, 1), (0, 0, 0), (2, 2, 2)])
    def test_there_is_room_up_to_the_maximum(self, minimum, maximum, room):
        stock = make(minimum, maximum)
        for _ in range(room):
            assert stock.has_room
            stock.put("a", NOW)
        assert not stock.has_room


class TestAge:
    def test_an_age_is_over_exactly_at_its_end(self):
        stock = make(max_age_s=100.0)
        stock.put("a", NOW)
        assert stock.next_expiry() == NOW + 100.0
        assert stock.expired(NOW + 99.9) == []
        assert stock.expired(NOW + 100.0) == ["a"]
        assert len(stock) == 0

    def test_jitter_takes_up_to_a_fifth_off(self):
        stock = make(max_age_s=100.0, falls=0.0)
        stock.put("a", NOW)
        assert stock.next_expiry() == pytest.approx(NOW + 100.0 * (1 - AGE_JITTER))

    def test_the_next_expiry_is_of_whichever_ends_first(self):
        dice = FakeDice(1.0)
        stock = Stock(StockPolicy(1, 4, 100.0), dice)
        stock.put("a", NOW)
        dice.falls = 0.0
        stock.put("b", NOW)
        assert stock.next_expiry() == pytest.approx(NOW + 80.0)
        assert stock.expired(NOW + 90.0) == ["b"]

    def test_nothing_warm_expires_never(self):
        assert make().next_expiry() is None


class TestWaiters:
    def test_whoever_has_waited_longest_is_next(self):
        stock = with_waiters(make(), 3)
        assert [stock.next_waiter() for _ in range(4)] == ["client-0", "client-1", "client-2", None]

    def test_one_that_has_left_is_skipped(self):
        stock = with_waiters(make(), 2)
        stock.leave("client-0")
        assert stock.next_waiter() == "client-1"

    def test_leaving_after_being_served_does_no_harm(self):
        stock = with_waiters(make(), 2)
        stock.next_waiter()
        stock.leave("client-0")
        assert stock.waiting == 1

    @pytest.mark.parametrize(("waiting", "expected"), [(MAX_WAITING - 1, True), (MAX_WAITING, False)])
    def test_so_many_may_wait_and_no_more(self, waiting, expected):
        assert with_waiters(make(), waiting).may_wait is expected

    def test_a_failure_is_for_whoever_has_waited_longest(self):
        stock = with_waiters(make(), 2)
        stock.dials_by_clients = 2
        assert stock.next_to_fail() == "client-0"

    def test_a_failure_is_nobodys_while_other_dials_suffice_for_all(self):
        stock = with_waiters(make(), 2)
        stock.dials_by_clients = 3
        assert stock.next_to_fail() is None
        assert stock.waiting == 2

    def test_a_failure_that_nobody_waited_for_is_nobodys(self):
        stock = make()
        stock.dials_by_clients = 1
        assert stock.next_to_fail() is None


class TestTarget:
    def test_it_is_the_minimum_while_nothing_is_taken(self):
        assert make(minimum=2).target(NOW) == 2

    @pytest.mark.parametrize(("takes", "expected"), [(0, 1), (1, 2), (2, 4), (5, 10), (6, 10)])
    def test_it_is_twice_the_takes_of_one_dial_within_the_bounds(self, takes, expected):
        stock = make(minimum=1, maximum=10)
        stock.dial_took(0.5)
        for _ in range(takes):
            stock.note_take(NOW)
        assert stock.target(NOW + 0.4) == expected

    def test_takes_longer_ago_than_a_refill_takes_are_forgotten(self):
        stock = make(maximum=10)
        stock.dial_took(0.5)
        stock.note_take(NOW)
        assert stock.target(NOW + 0.5 + REFILL_DELAY_S - 0.001) == 2
        assert stock.target(NOW + 0.5 + REFILL_DELAY_S + 0.001) == 1

    def test_takes_count_even_where_a_dial_is_quicker_than_the_delay_of_the_refill(self):
        stock = make(maximum=10)
        stock.dial_took(0.002)
        for _ in range(3):
            stock.note_take(NOW)
        assert stock.target(NOW + REFILL_DELAY_S) == 6

    def test_the_duration_of_a_dial_is_a_moving_average(self):
        stock = make()
        stock.dial_took(1.0)
        assert stock.dial_s == 1.0
        stock.dial_took(2.0)
        assert stock.dial_s == pytest.approx(1.2)


class TestDialsWanted:
    def test_one_for_each_client_that_waits(self):
        stock = with_waiters(make(), 3)
        assert stock.dials_wanted_by_clients() == 3
        stock.dials_by_clients = 2
        assert stock.dials_wanted_by_clients() == 1

    @pytest.mark.parametrize("waiting", [MAX_DIALS_PER_ROUTE - 1, MAX_DIALS_PER_ROUTE, MAX_DIALS_PER_ROUTE + 1])
    def test_clients_never_get_more_than_the_cap(self, waiting):
        assert with_waiters(make(), waiting).dials_wanted_by_clients() == min(waiting, MAX_DIALS_PER_ROUTE)

    def test_refills_under_way_count_to_the_cap(self):
        stock = with_waiters(make(), 100)
        stock.dials_by_stock = 4
        assert stock.dials_wanted_by_clients() == MAX_DIALS_PER_ROUTE - 4

    def test_refills_leave_places_to_clients(self):
        assert make(100, 100).dials_wanted_by_stock(NOW) == MAX_REFILLS_PER_ROUTE

    def test_refills_take_only_what_clients_left(self):
        stock = with_waiters(make(100, 100), MAX_DIALS_PER_ROUTE)
        stock.dials_by_clients = MAX_DIALS_PER_ROUTE - 1
        assert stock.dials_wanted_by_stock(NOW) == 1

    def test_what_is_warm_or_under_way_is_not_ordered_again(self):
        stock = make(4, 4)
        stock.put("a", NOW)
        stock.dials_by_stock = 2
        assert stock.dials_wanted_by_stock(NOW) == 1

    def test_dials_whose_clients_left_fill_the_stock(self):
        stock = make(4, 4)
        stock.dials_by_clients = 3
        assert stock.dials_wanted_by_stock(NOW) == 1

    def test_a_surplus_is_not_a_negative_wish(self):
        stock = make(1, 4)
        for name in ("a", "b", "c"):
            stock.put(name, NOW)
        assert stock.dials_wanted_by_stock(NOW) == 0


class StockMachine(RuleBasedStateMachine):
    """Drives a stock as ``Pool`` does, against a model of two queues."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = StockPolicy(2, 5, 100.0)
        self.stock: Stock[int, int] = Stock(self.policy, FakeDice())
        self.now = NOW
        self.names = iter(range(1_000_000))
        self.warm: deque[int] = deque()
        self.waiting: deque[int] = deque()
        self.handed_out: set[int] = set()
        self.outcomes: set[int] = set()

    # What the pool does after each event.

    def order(self) -> None:
        self.stock.dials_by_clients += self.stock.dials_wanted_by_clients()

    def hand_out(self, tunnel: int) -> None:
        assert tunnel not in self.handed_out
        self.handed_out.add(tunnel)

    def conclude(self, waiter: int | None) -> None:
        expected = self.waiting.popleft() if self.waiting else None
        assert waiter == expected
        assert waiter not in self.outcomes
        if waiter is not None:
            self.outcomes.add(waiter)

    def supply(self) -> None:
        tunnel = next(self.names)
        if self.waiting:
            self.conclude(self.stock.next_waiter())
            self.hand_out(tunnel)
        elif self.stock.has_room:
            self.stock.put(tunnel, self.now)
            self.warm.append(tunnel)

    # What may happen.

    @rule()
    def a_client_comes(self) -> None:
        self.stock.note_take(self.now)
        tunnel = self.stock.take()
        assert tunnel == (self.warm.popleft() if self.warm else None)
        if tunnel is not None:
            self.hand_out(tunnel)
            return
        client = next(self.names)
        self.stock.wait(client)
        self.waiting.append(client)
        self.order()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def a_client_leaves(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(list(self.waiting)))
        self.stock.leave(client)
        self.waiting.remove(client)

    @rule()
    def the_keeper_looks(self) -> None:
        for tunnel in self.stock.expired(self.now):
            self.warm.remove(tunnel)
        self.stock.dials_by_stock += self.stock.dials_wanted_by_stock(self.now)

    @precondition(lambda self: self.stock.dials_by_clients)
    @rule(succeeds=st.booleans(), took_s=st.floats(0.001, 10))
    def a_clients_dial_ends(self, succeeds: bool, took_s: float) -> None:
        if succeeds:
            self.stock.dial_took(took_s)
            self.supply()
        elif self.stock.dials_by_clients <= len(self.waiting):
            self.conclude(self.stock.next_to_fail())
        else:
            assert self.stock.next_to_fail() is None
        self.stock.dials_by_clients -= 1
        self.order()

    @precondition(lambda self: self.stock.dials_by_stock)
    @rule(succeeds=st.booleans())
    def a_refill_ends(self, succeeds: bool) -> None:
        if succeeds:
            self.supply()
        self.stock.dials_by_stock -= 1
        self.order()

    @precondition(lambda self: self.warm)
    @rule(data=st.data())
    def a_warm_tunnel_ends(self, data: st.DataObject) -> None:
        tunnel = data.draw(st.sampled_from(list(self.warm)))
        self.warm.remove(tunnel)
        assert self.stock.remove(tunnel)
        assert not self.stock.remove(tunnel)

    @rule(seconds=st.floats(0, 60))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    # What always holds.

    @invariant()
    def it_holds_what_the_model_holds_and_never_too_much(self) -> None:
        assert len(self.stock) == len(self.warm) <= self.policy.maximum

    @invariant()
    def the_target_is_within_its_bounds(self) -> None:
        assert self.policy.minimum <= self.stock.target(self.now) <= self.policy.maximum

    @invariant()
    def no_more_dials_than_the_cap(self) -> None:
        under_way = self.stock.dials_by_clients + self.stock.dials_by_stock
        assert under_way <= MAX_DIALS_PER_ROUTE
        assert under_way + self.stock.dials_wanted_by_clients() <= MAX_DIALS_PER_ROUTE
        assert under_way + self.stock.dials_wanted_by_stock(self.now) <= MAX_DIALS_PER_ROUTE

    @invariant()
    def for_everybody_who_waits_a_dial_is_under_way_as_far_as_the_cap_allows(self) -> None:
        assert self.stock.waiting == len(self.waiting)
        places = MAX_DIALS_PER_ROUTE - self.stock.dials_by_stock
        assert self.stock.dials_by_clients >= min(len(self.waiting), places)
        assert not self.waiting or self.stock.dials_by_clients


TestAnyHistory = StockMachine.TestCase
TestAnyHistory.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
