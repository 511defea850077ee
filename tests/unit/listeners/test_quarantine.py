"""The quarantine retries a route with a taken address, at once on request, and never after the route is gone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from pomagent.errors import BindError
from pomagent.listeners.listeners import Prepared
from pomagent.listeners.quarantine import Quarantine
from pomagent.settings import Route
from tests.fakes.greenlets import settle
from tests.fakes.log import FakeLog
from tests.fakes.pool import ROUTE

NAME = ROUTE.name
TAKEN = BindError(ROUTE.listen, "address in use")


class Listeners:
    """Fake listeners with addresses that stay taken until the test frees them."""

    def __init__(self) -> None:
        self.is_free = False
        self.attempts = 0
        self.committed: list[Prepared] = []

    def prepare(self, routes: list[Route], *, all_routes: list[Route]) -> Prepared:
        self.attempts += 1
        return Prepared() if self.is_free else Prepared(failures={route.name: TAKEN for route in routes})

    def commit(self, prepared: Prepared) -> None:
        self.committed.append(prepared)


class Scene:
    def __init__(self) -> None:
        self.listeners: Any = Listeners()
        self.log = FakeLog()
        self.routes = [ROUTE]
        self.released: list[Route] = []
        self.quarantine = Quarantine(
            self.listeners, lambda: self.routes, self.released.append, lambda _: None, self.log.log
        )
        self.quarantine.update({NAME}, {NAME: TAKEN})
        settle()

    def retry(self, name: str = NAME) -> None:
        self.quarantine.retry(name)
        settle()


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.quarantine.close()
    settle()


def test_quarantined_routes_are_listed_with_their_reasons(scene: Scene) -> None:
    assert scene.quarantine.reasons == {NAME: str(TAKEN)}
    assert scene.log.events == ["route.quarantined"]


def test_a_requested_retry_is_immediate(scene: Scene) -> None:
    scene.retry()
    assert scene.listeners.attempts == 1
    assert scene.log.named("listener.bind_failed")[0]["retry_in_ms"] == 2000
    scene.listeners.is_free = True
    scene.retry()
    assert (scene.released, scene.quarantine.reasons) == ([ROUTE], {})
    assert len(scene.listeners.committed) == 1


def test_a_retry_of_another_route_changes_nothing(scene: Scene) -> None:
    scene.retry("another")
    assert scene.listeners.attempts == 0


def test_a_removed_route_is_not_bound(scene: Scene) -> None:
    scene.listeners.is_free = True
    scene.routes = []
    scene.quarantine.update(set(), {})
    settle()
    assert (scene.listeners.attempts, scene.released, scene.quarantine.reasons) == (0, [], {})


def test_a_retry_uses_the_current_settings_of_the_route(scene: Scene) -> None:
    scene.listeners.is_free = True
    scene.routes = [moved := replace(ROUTE, description="elsewhere")]
    scene.retry()
    assert scene.released == [moved]


def test_a_closed_quarantine_binds_nothing(scene: Scene) -> None:
    scene.listeners.is_free = True
    scene.quarantine.close()
    scene.retry()
    assert (scene.listeners.attempts, scene.quarantine.reasons) == (0, {})
