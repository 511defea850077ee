"""Who asks for a thousand routes, and how often everybody else has a turn meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pomagent.admin.status import resources as site_module
from pomagent.admin.status.batches import BATCH_SIZE, in_batches
from pomagent.admin.status.http import HttpRequest
from pomagent.admin.status.resources import StatusResources
from pomagent.settings import Gateway, HostPort, Route

GATEWAY = Gateway("edge", HostPort("edge.invalid", 443))
ROUTES = tuple(Route(f"r{n}", HostPort("127.0.0.1", 1), HostPort(f"r{n}.invalid", 1), GATEWAY) for n in range(1000))


class Turns:
    """Counts how often it gives way, and what was looked at in between."""

    def __init__(self) -> None:
        self.looks = [0]

    def looked(self) -> None:
        self.looks[-1] += 1

    def give_way(self) -> None:
        self.looks.append(0)


def test_others_have_their_turn_after_each_portion() -> None:
    fair_share = Turns()
    for _ in in_batches(range(BATCH_SIZE * 2 + 1), fair_share.give_way):
        fair_share.looked()
    assert fair_share.looks == [BATCH_SIZE, BATCH_SIZE, 1]


@pytest.fixture
def fair_share(monkeypatch: pytest.MonkeyPatch) -> Turns:
    fair_share = Turns()
    monkeypatch.setattr(site_module, "give_way", fair_share.give_way)
    return fair_share


@pytest.fixture
def site(fair_share: Turns) -> StatusResources:
    def forwarder(_: str) -> None:
        fair_share.looked()

    agent: Any = SimpleNamespace(forwarder=forwarder, quarantined={"r7": "the port is taken"})
    reloader: Any = SimpleNamespace(current=SimpleNamespace(routes=ROUTES))
    recent: Any = None
    return StatusResources(agent, reloader, recent, 0.0, is_started=lambda: True, is_draining=lambda: False)


def ask(site: StatusResources, path: str, **query: str) -> str:
    resource = site.find(path)
    assert resource is not None
    return resource.show(HttpRequest("GET", path, query)).body.decode()


def test_the_readiness_of_all_routes_is_found_out_in_portions(site: StatusResources, fair_share: Turns) -> None:
    assert "1000 of 1000 routes are not ready" in ask(site, "/readyz", require="all")
    assert max(fair_share.looks) <= BATCH_SIZE
    assert sum(fair_share.looks) == len(ROUTES)


def test_the_readiness_of_one_route_takes_a_look_at_that_one(site: StatusResources, fair_share: Turns) -> None:
    assert "the port is taken" in ask(site, "/readyz/r7")
    assert fair_share.looks == [1]


def test_whoever_requires_no_route_costs_none_a_look(site: StatusResources, fair_share: Turns) -> None:
    assert ask(site, "/readyz") == "ok\n"
    assert fair_share.looks == [0]
