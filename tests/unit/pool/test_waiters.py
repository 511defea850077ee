"""Clients in line: in order, bounded, and nobody who has left is in the way."""

import pytest

from pomagent.pool.waiters import MAX_WAITING, Waiters


def line_of(number: int) -> Waiters[str]:
    waiters: Waiters[str] = Waiters()
    for index in range(number):
        waiters.join(f"client-{index}")
    return waiters


def test_whoever_has_waited_longest_is_next():
    waiters = line_of(3)
    assert [waiters.next() for _ in range(4)] == ["client-0", "client-1", "client-2", None]


def test_one_that_has_left_is_skipped():
    waiters = line_of(2)
    waiters.leave("client-0")
    assert waiters.next() == "client-1"


def test_leaving_after_being_served_does_no_harm():
    waiters = line_of(2)
    waiters.next()
    waiters.leave("client-0")
    assert len(waiters) == 1


def test_marks_tell_who_came_before():
    waiters = line_of(2)
    mark = waiters.mark
    waiters.join("late")
    assert waiters.has_since(mark)
    assert waiters.before(mark) == ["client-0", "client-1"]
    assert waiters.before(mark) == []
    assert waiters.next_before(mark) is None
    assert waiters.next() == "late"
    assert not waiters.has_since(mark)


def test_the_longest_waiting_is_the_first_before_a_mark():
    waiters = line_of(2)
    assert waiters.next_before(1) == "client-0"
    assert waiters.next_before(1) is None
    assert waiters.next_before(2) == "client-1"


@pytest.mark.parametrize(("waiting", "expected"), [(MAX_WAITING - 1, True), (MAX_WAITING, False)])
def test_so_many_may_wait_and_no_more(waiting, expected):
    assert line_of(waiting).has_room is expected
