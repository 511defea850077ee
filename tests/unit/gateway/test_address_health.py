"""A failed address is dialled last for a minute."""

import pytest

from pomagent.gateway.address_health import AVOID_S, AddressHealth

NOW = 1000.0
A, B, C = ("10.0.0.1", 443), ("10.0.0.2", 443), ("::1", 443)
ALL = [("inet", A), ("inet", B), ("inet6", C)]


@pytest.fixture
def book() -> AddressHealth:
    return AddressHealth()


def order(book: AddressHealth, now: float = NOW) -> list[tuple[str, int]]:
    return [address for _, address in book.order(ALL, now)]


def test_without_failures_the_order_stays(book):
    assert order(book) == [A, B, C]


def test_failed_addresses_come_last_and_oldest_failure_first(book):
    book.failed(B, NOW - 1)
    book.failed(A, NOW - 2)
    assert order(book) == [C, A, B]
    assert sorted(book.avoided(NOW)) == ["10.0.0.1:443", "10.0.0.2:443"]


def test_all_failed_addresses_are_still_returned(book):
    for number, address in enumerate((C, A, B)):
        book.failed(address, NOW + number)
    assert order(book, NOW + 3) == [C, A, B]


@pytest.mark.parametrize(("ago_s", "first"), [(AVOID_S - 0.1, B), (AVOID_S, A)])
def test_failure_expires(book, ago_s, first):
    book.failed(A, NOW - ago_s)
    assert order(book)[0] == first


def test_success_clears_a_failure(book):
    book.failed(A, NOW)
    book.succeeded(A)
    assert order(book) == [A, B, C]
    assert book.avoided(NOW) == []


def test_expired_failures_are_dropped(book):
    for number in range(1000):
        book.failed((f"10.1.{number // 256}.{number % 256}", 443), NOW + number)
    assert len(book._failed_at) <= AVOID_S


def test_clear_forgets_all_failures(book):
    book.failed(A, NOW)
    book.failed(B, NOW)
    book.clear()
    assert order(book) == [A, B, C]
    assert book.avoided(NOW) == []
