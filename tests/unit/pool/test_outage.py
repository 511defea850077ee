"""How long a route holds new clients while its dials fail."""

import pytest

from pomagent.pool.outage import SERVED_WITHIN_S, Outage

NOW = 1000.0
HOLD_S = 8.0


@pytest.fixture
def outage() -> Outage:
    served = Outage()
    served.succeeded(NOW)
    return served


def test_no_client_is_held_while_no_dial_fails(outage: Outage) -> None:
    assert outage.hold_until(HOLD_S) == 0.0


def test_route_that_never_served_holds_no_client() -> None:
    outage = Outage()
    outage.was_alive(NOW)
    outage.failed(NOW, may_pass=True)
    assert outage.hold_until(HOLD_S) == 0.0


@pytest.mark.parametrize(
    ("idle_s", "expected"),
    [(SERVED_WITHIN_S - 0.1, NOW + SERVED_WITHIN_S - 0.1 + HOLD_S), (SERVED_WITHIN_S, NOW + SERVED_WITHIN_S + HOLD_S),
     (SERVED_WITHIN_S + 0.1, 0.0)],
)  # fmt: skip
def test_route_must_have_served_within_the_last_minute(outage: Outage, idle_s: float, expected: float) -> None:
    outage.failed(NOW + idle_s, may_pass=True)
    assert outage.hold_until(HOLD_S) == expected


def test_tunnel_that_lived_until_the_outage_counts_as_service(outage: Outage) -> None:
    outage.was_alive(NOW + 300)
    outage.failed(NOW + 301, may_pass=True)
    assert outage.hold_until(HOLD_S) == NOW + 301 + HOLD_S


def test_further_failures_do_not_prolong_the_hold(outage: Outage) -> None:
    outage.failed(NOW + 1, may_pass=True)
    outage.failed(NOW + 5, may_pass=True)
    assert outage.hold_until(HOLD_S) == NOW + 1 + HOLD_S


def test_verdict_ends_the_hold_until_a_dial_succeeds(outage: Outage) -> None:
    outage.failed(NOW + 1, may_pass=False)
    outage.was_alive(NOW + 2)
    outage.failed(NOW + 3, may_pass=True)
    assert outage.hold_until(HOLD_S) == 0.0
    outage.succeeded(NOW + 4)
    outage.failed(NOW + 5, may_pass=True)
    assert outage.hold_until(HOLD_S) == NOW + 5 + HOLD_S


def test_forgotten_failures_begin_a_new_hold(outage: Outage) -> None:
    outage.failed(NOW + 1, may_pass=True)
    outage.forget_failures()
    assert outage.hold_until(HOLD_S) == 0.0
    outage.failed(NOW + 7, may_pass=True)
    assert outage.hold_until(HOLD_S) == NOW + 7 + HOLD_S
