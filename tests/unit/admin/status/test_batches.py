"""Requests for a thousand routes let other greenlets run in between."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pomagent.admin.status import resources as resources_module
from pomagent.admin.status.batches import BATCH_SIZE, in_batches
from pomagent.admin.status.http import HttpRequest
from pomagent.admin.status.resources import StatusResources
from pomagent.settings import Gateway, HostPort, Route

GATEWAY = Gateway("edge", HostPort("edge.invalid", 443))
ROUTES = tuple(Route(f"r{n}", HostPort("127.0.0.1", 1), HostPort(f"r{n}.invalid", 1), GATEWAY) for n in range(1000))


class Batches:
    """Counts the items processed between two calls of ``give_way``."""

    def __init__(self) -> None:
        self.sizes = [0]

    def count(self) -> None:
        self.sizes[-1] += 1

    def give_way(self) -> None:
        self.sizes.append(0)


def test_other_greenlets_may_run_after_each_batch() -> None:
    batches = Batches()
    for _ in in_batches(range(BATCH_SIZE * 2 + 1), batches.give_way):
        batches.count()
    assert batches.sizes == [BATCH_SIZE, BATCH_SIZE, 1]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    batches = Batches()
    monkeypatch.setattr(resources_module, "give_way", batches.give_way)
    return batches


@pytest.fixture
def resources(batches: Batches) -> StatusResources:
    def forwarder(_: str) -> None:
        batches.count()

    agent: Any = SimpleNamespace(forwarder=forwarder, quarantined={"r7": "the port is taken"})
    reloader: Any = SimpleNamespace(current=SimpleNamespace(routes=ROUTES))
    recent: Any = None
    return StatusResources(agent, reloader, recent, 0.0, is_started=lambda: True, is_draining=lambda: False)


def ask(resources: StatusResources, path: str, **query: str) -> str:
    resource = resources.find(path)
    assert resource is not None
    return resource.show(HttpRequest("GET", path, query)).body.decode()


def test_the_readiness_of_all_routes_is_determined_in_batches(resources: StatusResources, batches: Batches) -> None:
    assert "1000 of 1000 routes not ready" in ask(resources, "/readyz", require="all")
    assert max(batches.sizes) <= BATCH_SIZE
    assert sum(batches.sizes) == len(ROUTES)


def test_the_readiness_of_one_route_inspects_only_that_route(resources: StatusResources, batches: Batches) -> None:
    assert "the port is taken" in ask(resources, "/readyz/r7")
    assert batches.sizes == [1]


def test_a_probe_that_requires_no_route_inspects_none(resources: StatusResources, batches: Batches) -> None:
    assert ask(resources, "/readyz") == "ok\n"
    assert batches.sizes == [0]
