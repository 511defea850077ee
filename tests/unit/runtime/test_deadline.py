"""A deadline is one time budget for all waits of an operation."""

from pomagent.runtime.deadline import Deadline
from tests.fakes.clock import FakeClock


def test_remaining_time_shrinks_with_the_clock():
    clock = FakeClock()
    deadline = Deadline(5.0, clock)
    clock.advance(2.0)
    assert deadline.remaining_s == 3.0
    assert deadline.budget_s == 5.0
    assert not deadline.is_over


def test_deadline_is_over_exactly_when_no_time_remains():
    clock = FakeClock()
    deadline = Deadline(5.0, clock)
    clock.advance(4.875)
    assert (deadline.remaining_s, deadline.is_over) == (0.125, False)
    clock.advance(0.125)
    assert (deadline.remaining_s, deadline.is_over) == (0.0, True)


def test_remaining_time_is_never_negative():
    clock = FakeClock()
    deadline = Deadline(5.0, clock)
    clock.advance(500.0)
    assert deadline.remaining_s == 0.0


def test_no_budget_is_over_at_once():
    assert Deadline(0.0, FakeClock()).is_over
