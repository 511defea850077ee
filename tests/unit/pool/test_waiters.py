"""A queue of clients: in order, bounded, and not held up by clients that have left."""

import pytest

from pomagent.pool.waiters import MAX_WAITING, Waiters


def queue_of(number: int) -> Waiters[str]:
    waiters: Waiters[str] = Waiters()
    for index in range(number):
        waiters.join(f"client-{index}")
    return waiters


def test_client_that_has_waited_longest_is_next():
    waiters = queue_of(3)
    assert [waiters.next() for _ in range(4)] == ["client-0", "client-1", "client-2", None]


def test_client_that_has_left_is_skipped():
    waiters = queue_of(2)
    waiters.leave("client-0")
    assert waiters.next() == "client-1"


def test_leaving_after_being_served_changes_nothing():
    waiters = queue_of(2)
    waiters.next()
    waiters.leave("client-0")
    assert len(waiters) == 1


def test_mark_separates_earlier_clients_from_later_ones():
    waiters = queue_of(2)
    mark = waiters.mark
    waiters.join("late")
    assert waiters.has_since(mark)
    assert waiters.before(mark) == ["client-0", "client-1"]
    assert waiters.before(mark) == []
    assert waiters.next_before(mark) is None
    assert waiters.next() == "late"
    assert not waiters.has_since(mark)


def test_oldest_client_is_the_first_before_a_mark():
    waiters = queue_of(2)
    assert waiters.next_before(1) == "client-0"
    assert waiters.next_before(1) is None
    assert waiters.next_before(2) == "client-1"


@pytest.mark.parametrize(("waiting", "expected"), [(MAX_WAITING - 1, True), (MAX_WAITING, False)])
def test_room_ends_at_the_limit(waiting, expected):
    assert queue_of(waiting).has_room is expected
