"""Operator actions check their arguments before they change anything."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pomagent.admin.control.actions import MAX_FOR_S, OperatorActions
from pomagent.admin.control.server import Declined
from pomagent.log.logger import LogLevel
from pomagent.log.verbosity import Verbosity
from pomagent.sessions.ends import CLOSED, End


class Forwarder:
    """A running route with sessions that end at once."""

    def __init__(self, name: str, *numbers: int) -> None:
        self.route = SimpleNamespace(name=name, enabled=True)
        self.numbers = list(numbers)
        self.is_paused = False

    @property
    def session_count(self) -> int:
        return len(self.numbers)

    def stop_sessions(self, end: End, numbers: set[int] | None = None) -> list[int]:
        assert end is CLOSED
        ended = [number for number in self.numbers if numbers is None or number in numbers]
        self.numbers = [number for number in self.numbers if number not in ended]
        return ended

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False


class Agent:
    def __init__(self, *forwarders: Forwarder) -> None:
        self._by_name = {forwarder.route.name: forwarder for forwarder in forwarders}
        self.routes = [*(each.route for each in forwarders), SimpleNamespace(name="disabled", enabled=False)]
        self.retried: list[Any] = []

    def forwarders(self) -> list[Forwarder]:
        return list(self._by_name.values())

    def forwarder(self, name: str) -> Forwarder | None:
        return self._by_name.get(name)

    @property
    def running(self) -> list[int]:
        return [number for each in self._by_name.values() for number in each.numbers]

    def retry(self, names: list[str] | None) -> None:
        self.retried.append(names)


@pytest.fixture
def agent() -> Agent:
    return Agent(Forwarder("orders", 1, 3), Forwarder("billing", 2))


@pytest.fixture
def actions(agent: Any) -> OperatorActions:
    return OperatorActions(agent, Verbosity(LogLevel()))


@pytest.mark.parametrize(
    ("body", "closed", "left"),
    [
        ({"sessions": [3]}, [3], [1, 2]),
        ({"sessions": [3, 2, 3]}, [2, 3], [1]),
        ({"routes": ["orders"]}, [1, 3], [2]),
        ({"routes": ["orders", "billing"]}, [1, 2, 3], []),
    ],
)
def test_close_ends_the_named_sessions(actions, agent, body, closed, left):
    assert actions.close(body) == {"closed": closed}
    assert agent.running == left


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "name either sessions or routes"),
        ({"sessions": [1], "routes": ["orders"]}, "name either sessions or routes"),
        ({"sessions": [1, 4]}, "no running session has the number 4"),
        ({"sessions": [True]}, "must be a list of numbers"),
        ({"sessions": "1"}, "must be a list of numbers"),
        ({"sessions": [1.0]}, "must be a list of numbers"),
        ({"routes": "orders"}, "must be a list of names"),
        ({"routes": [1]}, "must be a list of names"),
        ({"routes": ["orders", "nowhere"]}, "no running route is named nowhere"),
    ],
)
def test_close_with_invalid_arguments_ends_nothing(actions, agent, body, why):
    with pytest.raises(Declined, match=why):
        actions.close(body)
    assert len(agent.running) == 3


def test_pause_and_resume_report_what_they_changed(actions, agent):
    assert actions.pause({"routes": ["orders"]}) == {"paused": ["orders"], "sessions_left": {"orders": 2}}
    both = actions.pause({"routes": ["orders", "billing", "billing"]})
    assert both == {"paused": ["billing"], "sessions_left": {"orders": 2, "billing": 1}}
    assert actions.resume({"routes": ["orders"]}) == {"resumed": ["orders"]}
    assert actions.resume({"routes": ["orders"]}) == {"resumed": []}
    assert [each.is_paused for each in agent.forwarders()] == [False, True]


@pytest.mark.parametrize("body", [{}, {"routes": []}, {"routes": ["disabled"]}, {"routes": ["orders", "nowhere"]}])
@pytest.mark.parametrize("what", ["pause", "resume"])
def test_an_unknown_or_disabled_route_prevents_the_whole_request(actions, agent, body, what):
    with pytest.raises(Declined):
        getattr(actions, what)(body)
    assert not any(each.is_paused for each in agent.forwarders())


def test_retry_applies_to_all_routes_or_the_named_ones(actions, agent):
    assert actions.retry({}) == {"retried": ["orders", "billing"]}
    assert actions.retry({"routes": ["billing"]}) == {"retried": ["billing"]}
    assert agent.retried == [None, ["billing"]]


@pytest.mark.parametrize("name", ["nowhere", "disabled"])
def test_retry_of_an_unknown_or_disabled_route_is_declined(actions, agent, name):
    with pytest.raises(Declined, match=f"no enabled route is named {name}"):
        actions.retry({"routes": ["billing", name]})
    assert agent.retried == []


def test_the_log_level_is_changed_and_restored(actions):
    assert actions.log_level({"level": "debug"}) == {"level": "debug", "configured": "info"}
    assert actions.level() == {"level": "debug", "configured": "info"}
    assert actions.log_level({"level": ""}) == {"level": "info", "configured": "info"}


@pytest.mark.parametrize(
    "body",
    [{}, {"level": "loud"}, {"level": None}, {"level": ["debug"]}, {"level": "critical"}]
    + [{"level": "debug", "for_s": bad} for bad in (-1, MAX_FOR_S + 1, "1", True, float("nan"), float("inf"))],
)
def test_an_invalid_level_or_duration_changes_nothing(actions, body):
    with pytest.raises(Declined):
        actions.log_level(body)
    assert actions.level()["level"] == "info"


def test_the_maximum_duration_is_accepted(actions):
    assert actions.log_level({"level": "debug", "for_s": MAX_FOR_S})["level"] == "debug"
    actions.log_level({"level": ""})
