"""A route whose address is taken is tried again, at an operator's word at once, and never after it is gone."""

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
    """Of which no address is free until the test says so."""

    def __init__(self) -> None:
        self.is_free = False
        self.tries = 0
        self.taken: list[Prepared] = []

    def prepare(self, routes: list[Route], *, all_routes: list[Route]) -> Prepared:
        self.tries += 1
        return Prepared() if self.is_free else Prepared(failures={route.name: TAKEN for route in routes})

    def take(self, prepared: Prepared) -> None:
        self.taken.append(prepared)


class Scene:
    def __init__(self) -> None:
        self.listeners: Any = Listeners()
        self.log = FakeLog()
        self.routes = [ROUTE]
        self.released: list[Route] = []
        self.quarantine = Quarantine(
            self.listeners, lambda: self.routes, self.released.append, lambda _: None, self.log.log
        )
        self.quarantine.keep({NAME}, {NAME: TAKEN})
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


def test_it_says_who_is_in_it_and_why(scene: Scene) -> None:
    assert scene.quarantine.why == {NAME: str(TAKEN)}
    assert scene.log.events == ["route.quarantined"]


def test_a_word_of_the_operator_is_a_try_at_once(scene: Scene) -> None:
    scene.retry()
    assert scene.listeners.tries == 1
    assert scene.log.named("listener.bind_failed")[0]["retry_in_ms"] == 2000
    scene.listeners.is_free = True
    scene.retry()
    assert (scene.released, scene.quarantine.why) == ([ROUTE], {})
    assert len(scene.listeners.taken) == 1


def test_a_word_about_another_route_changes_nothing(scene: Scene) -> None:
    scene.retry("another")
    assert scene.listeners.tries == 0


def test_a_route_that_is_gone_is_not_bound(scene: Scene) -> None:
    scene.listeners.is_free = True
    scene.routes = []
    scene.quarantine.keep(set(), {})
    settle()
    assert (scene.listeners.tries, scene.released, scene.quarantine.why) == (0, [], {})


def test_it_is_bound_where_the_file_says_now(scene: Scene) -> None:
    scene.listeners.is_free = True
    scene.routes = [moved := replace(ROUTE, description="elsewhere")]
    scene.retry()
    assert scene.released == [moved]


def test_after_the_end_nobody_is_bound(scene: Scene) -> None:
    scene.listeners.is_free = True
    scene.quarantine.close()
    scene.retry()
    assert (scene.listeners.tries, scene.quarantine.why) == (0, {})
