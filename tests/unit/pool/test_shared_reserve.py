"""What unused routes have in common comes back at an operator's word, too."""

from types import SimpleNamespace

import pytest

from pomagent.pool.shared_reserve import Reserve


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def reserve(calls: list[str]) -> Reserve:
    pool = SimpleNamespace(
        start=lambda: None, keep_at_least=lambda _: None, close=lambda _: None, retry_now=lambda: calls.append("retry")
    )
    return Reserve(lambda: pool)


def test_its_pool_forgets_its_waits(reserve: Reserve, calls: list[str]) -> None:
    reserve.join("a route")
    reserve.retry()
    assert calls == ["retry"]


def test_without_an_unused_route_there_is_nothing_to_retry(reserve: Reserve, calls: list[str]) -> None:
    reserve.join("a route")
    reserve.leave("a route")
    reserve.retry()
    assert calls == []
