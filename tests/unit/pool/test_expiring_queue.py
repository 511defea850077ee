"""What a pool holds: the oldest first, each once, each until its age is over."""

import pytest

from pomagent.pool.expiring_queue import AGE_JITTER, ExpiringQueue
from tests.fakes.clock import FakeDice

NOW = 1000.0


def stock_of(*tunnels: object, max_age_s: float = 100.0, falls: float = 1.0) -> ExpiringQueue[object]:
    stock: ExpiringQueue[object] = ExpiringQueue(FakeDice(falls))
    for tunnel in tunnels:
        stock.put(tunnel, max_age_s, NOW)
    return stock


def test_the_oldest_is_taken_first_and_each_only_once():
    stock = stock_of("a", "b", "c")
    assert [stock.take() for _ in range(4)] == ["a", "b", "c", None]


def test_one_that_ended_is_forgotten():
    stock = stock_of("a", "b")
    assert stock.remove("a")
    assert stock.take() == "b"


def test_one_that_is_not_there_cannot_be_removed():
    assert not stock_of().remove("a")


def test_tunnels_are_told_apart_by_identity():
    first, second = [1], [1]
    stock = stock_of(first, second)
    stock.remove(second)
    assert stock.take() is first


@pytest.mark.parametrize(("depth", "gone"), [(0, ["a", "b", "c"]), (2, ["a"]), (3, []), (4, [])])
def test_what_is_beyond_a_depth_goes_the_oldest_first(depth, gone):
    stock = stock_of("a", "b", "c")
    assert stock.beyond(depth) == gone
    assert len(stock) == 3 - len(gone)


def test_an_age_is_over_exactly_at_its_end():
    stock = stock_of("a", max_age_s=100.0)
    assert stock.next_expiry() == NOW + 100.0
    assert stock.expired(NOW + 99.9) == []
    assert stock.expired(NOW + 100.0) == ["a"]
    assert len(stock) == 0


def test_jitter_takes_up_to_a_fifth_off():
    assert stock_of("a", falls=0.0).next_expiry() == pytest.approx(NOW + 100.0 * (1 - AGE_JITTER))


def test_the_next_expiry_is_of_whichever_ends_first():
    stock = stock_of("a", max_age_s=100.0)
    stock.put("b", 80.0, NOW)
    assert stock.next_expiry() == pytest.approx(NOW + 80.0)
    assert stock.expired(NOW + 90.0) == ["b"]


def test_nothing_warm_expires_never():
    assert stock_of().next_expiry() is None
