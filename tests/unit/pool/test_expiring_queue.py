"""Tunnels in a queue: oldest first, each taken once, each until it expires."""

import pytest

from pomagent.pool.expiring_queue import AGE_JITTER, ExpiringQueue
from tests.fakes.clock import FakeDice

NOW = 1000.0


def queue_of(*tunnels: object, max_age_s: float = 100.0, falls: float = 1.0) -> ExpiringQueue[object]:
    queue: ExpiringQueue[object] = ExpiringQueue(FakeDice(falls))
    for tunnel in tunnels:
        queue.put(tunnel, max_age_s, NOW)
    return queue


def test_oldest_tunnel_is_taken_first_and_only_once():
    queue = queue_of("a", "b", "c")
    assert [queue.take() for _ in range(4)] == ["a", "b", "c", None]


def test_removed_tunnel_is_not_taken():
    queue = queue_of("a", "b")
    assert queue.remove("a")
    assert queue.take() == "b"


def test_absent_tunnel_cannot_be_removed():
    assert not queue_of().remove("a")


def test_tunnels_are_distinguished_by_identity():
    first, second = [1], [1]
    queue = queue_of(first, second)
    queue.remove(second)
    assert queue.take() is first


@pytest.mark.parametrize(("depth", "gone"), [(0, ["a", "b", "c"]), (2, ["a"]), (3, []), (4, [])])
def test_tunnels_beyond_a_depth_are_removed_oldest_first(depth, gone):
    queue = queue_of("a", "b", "c")
    assert queue.beyond(depth) == gone
    assert len(queue) == 3 - len(gone)


def test_tunnel_expires_exactly_at_its_maximum_age():
    queue = queue_of("a", max_age_s=100.0)
    assert queue.next_expiry() == NOW + 100.0
    assert queue.expired(NOW + 99.9) == []
    assert queue.expired(NOW + 100.0) == ["a"]
    assert len(queue) == 0


def test_jitter_shortens_a_life_by_up_to_a_fifth():
    assert queue_of("a", falls=0.0).next_expiry() == pytest.approx(NOW + 100.0 * (1 - AGE_JITTER))


def test_next_expiry_is_the_earliest():
    queue = queue_of("a", max_age_s=100.0)
    queue.put("b", 80.0, NOW)
    assert queue.next_expiry() == pytest.approx(NOW + 80.0)
    assert queue.expired(NOW + 90.0) == ["b"]


def test_empty_queue_has_no_expiry():
    assert queue_of().next_expiry() is None
