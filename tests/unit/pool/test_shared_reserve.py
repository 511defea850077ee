"""An operator's retry reaches the reserve that unused routes share."""

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


def test_retry_reaches_the_pool_of_the_reserve(reserve: Reserve, calls: list[str]) -> None:
    reserve.join("a route")
    reserve.retry()
    assert calls == ["retry"]


def test_retry_does_nothing_without_an_unused_route(reserve: Reserve, calls: list[str]) -> None:
    reserve.join("a route")
    reserve.leave("a route")
    reserve.retry()
    assert calls == []
