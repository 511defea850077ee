"""What a pool decides from a snapshot of itself: dials for clients, refills, placement, and refusals."""

from dataclasses import replace

import pytest

from pomagent.pool.decisions import (
    Concerned,
    Placement,
    PoolSnapshot,
    Refill,
    client_dials,
    clients_concerned,
    is_below_minimum,
    placement,
    refill,
    shared_dial_at,
)
from pomagent.pool.dial_budget import MAX_DIALS_PER_ROUTE, MAX_REFILLS_PER_ROUTE, DialBudget
from pomagent.pool.warm_policy import PolicyReason, WarmTarget

NOW = 1000.0
TUNNELS = WarmTarget("tunnel", PolicyReason.PORT, 100.0)
TLS = WarmTarget("tls", PolicyReason.PORT, 100.0)
OFF = WarmTarget("off", PolicyReason.CONFIGURED, 100.0)
PROBE = WarmTarget("tunnel", PolicyReason.PROBING, 100.0, max_count=1)
EMPTY = PoolSnapshot(
    now=NOW, target=TUNNELS, target_count=3, min_count=2, max_count=4, warm_count=0, level_count=0
)  # fmt: skip
OPEN = replace(EMPTY, is_breaker_open=True, waiting_count=3, has_uncovered_client=True, shared_dial_from=NOW)


class TestDialsForClients:
    def test_each_waiting_client_gets_a_dial(self):
        assert client_dials(replace(EMPTY, waiting_count=3)) == 3

    def test_clients_that_have_a_dial_get_no_other(self):
        assert client_dials(replace(EMPTY, waiting_count=3, dials=DialBudget(client_count=3))) == 0

    def test_open_breaker_permits_one_dial_for_all(self):
        assert client_dials(OPEN) == 1

    def test_open_breaker_delays_the_shared_dial(self):
        later = replace(OPEN, shared_dial_from=NOW + 0.5)
        assert client_dials(later) == 0
        assert shared_dial_at(later) == NOW + 0.5

    @pytest.mark.parametrize(
        "change",
        [
            {"is_breaker_open": False},
            {"has_uncovered_client": False},
            {"dials": DialBudget(MAX_DIALS_PER_ROUTE - 4, 4)},
        ],
    )
    def test_shared_dial_is_not_due_at_any_time(self, change):
        assert shared_dial_at(replace(OPEN, **change)) is None


class TestRefill:
    def test_missing_tunnels_are_dialled_now(self):
        assert refill(EMPTY) == Refill(3)

    def test_tunnels_and_refills_under_way_are_not_dialled_again(self):
        assert refill(replace(EMPTY, level_count=1, dials=DialBudget(refill_count=1))) == Refill(1)

    @pytest.mark.parametrize("level_count", [3, 4])
    def test_full_pool_needs_no_refill(self, level_count):
        assert refill(replace(EMPTY, level_count=level_count)) == Refill()

    def test_refill_waits_until_it_is_permitted(self):
        assert refill(replace(EMPTY, refill_from=NOW + 0.02)) == Refill(0, NOW + 0.02)
        assert refill(replace(EMPTY, refill_from=NOW)) == Refill(3)

    def test_full_pool_waits_for_nothing(self):
        assert refill(replace(EMPTY, level_count=3, refill_from=NOW + 5)) == Refill()

    def test_open_breaker_permits_one_refill_at_a_time(self):
        tried = replace(EMPTY, is_breaker_open=True)
        assert refill(tried) == Refill(1)
        assert refill(replace(tried, dials=DialBudget(refill_count=1))) == Refill()

    def test_failed_connects_do_not_hold_back_tls_connections(self):
        denied = replace(EMPTY, target=TLS, is_breaker_open=True, fails_after_tls=True)
        assert refill(denied) == Refill(3)
        assert refill(replace(denied, target=TUNNELS)) == Refill(1)

    def test_refills_leave_room_for_clients(self):
        assert refill(replace(EMPTY, target_count=100)) == Refill(MAX_REFILLS_PER_ROUTE)


@pytest.mark.parametrize(
    ("level_count", "target_count", "expected"),
    [(1, 3, True), (2, 3, False), (0, 1, True), (1, 1, False), (0, 0, False)],
)
def test_pool_is_below_its_minimum_or_a_lower_target(level_count, target_count, expected):
    assert is_below_minimum(replace(EMPTY, level_count=level_count, target_count=target_count)) is expected


class TestPlacement:
    def test_tunnel_goes_to_a_waiting_client(self):
        pool = replace(EMPTY, waiting_count=1)
        assert placement(pool, is_ready=True, is_refill=True) is Placement.CLIENT
        assert placement(replace(pool, is_draining=True), is_ready=True, is_refill=False) is Placement.CLIENT

    def test_tls_connection_does_not_go_to_a_client(self):
        pool = replace(EMPTY, target=TLS, waiting_count=1)
        assert placement(pool, is_ready=False, is_refill=True) is Placement.WARM

    def test_tunnel_without_a_client_stays_warm(self):
        assert placement(EMPTY, is_ready=True, is_refill=False) is Placement.WARM

    def test_probe_stays_warm_although_a_client_waits(self):
        pool = replace(EMPTY, target=PROBE, waiting_count=1)
        assert placement(pool, is_ready=True, is_refill=True) is Placement.WARM
        assert placement(pool, is_ready=True, is_refill=False) is Placement.CLIENT

    def test_second_probe_goes_to_a_client(self):
        pool = replace(EMPTY, target=PROBE, waiting_count=1, warm_count=1)
        assert placement(pool, is_ready=True, is_refill=True) is Placement.CLIENT

    def test_full_pool_closes_further_tunnels(self):
        full = replace(EMPTY, warm_count=4)
        assert placement(full, is_ready=True, is_refill=True) is Placement.UNWANTED
        assert placement(full, is_ready=True, is_refill=False) is Placement.UNWANTED

    @pytest.mark.parametrize("change", [{"is_draining": True}, {"target": TLS}, {"target": OFF}])
    @pytest.mark.parametrize(("is_refill", "expected"), [(True, Placement.UNWANTED), (False, Placement.ABORTED)])
    def test_tunnel_that_the_pool_does_not_keep_is_closed(self, change, is_refill, expected):
        assert placement(replace(EMPTY, **change), is_ready=True, is_refill=is_refill) is expected


class TestFailedDial:
    def test_failure_concerns_the_client_that_has_waited_longest(self):
        pool = replace(EMPTY, waiting_count=2, dials=DialBudget(client_count=2))
        assert clients_concerned(pool, may_pass=True) is Concerned.OLDEST

    def test_failure_concerns_no_client_while_other_dials_suffice(self):
        pool = replace(EMPTY, waiting_count=2, dials=DialBudget(client_count=3))
        assert clients_concerned(pool, may_pass=True) is Concerned.NONE

    def test_failure_concerns_all_clients_while_the_breaker_is_open(self):
        pool = replace(OPEN, dials=DialBudget(client_count=9))
        assert clients_concerned(pool, may_pass=True) is Concerned.ALL

    def test_failure_that_may_pass_concerns_no_client_during_a_hold(self):
        held = replace(OPEN, dials=DialBudget(client_count=1), hold_until=NOW + 0.1)
        assert clients_concerned(held, may_pass=True) is Concerned.NONE
        assert clients_concerned(held, may_pass=False) is Concerned.ALL
        assert clients_concerned(replace(held, hold_until=NOW), may_pass=True) is Concerned.ALL

    def test_clients_share_dials_during_a_hold_although_the_breaker_is_closed(self):
        held = replace(OPEN, is_breaker_open=False, hold_until=NOW + 0.1)
        assert client_dials(held) == 1
        assert client_dials(replace(held, shared_dial_from=NOW + 1)) == 0
        assert client_dials(replace(held, hold_until=NOW)) == 3
