"""What a command may ask for is checked before anything is done."""

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
def steering(agent: Any) -> OperatorActions:
    return OperatorActions(agent, Verbosity(LogLevel()))


@pytest.mark.parametrize(
    ("asked", "closed", "left"),
    [
        ({"sessions": [3]}, [3], [1, 2]),
        ({"sessions": [3, 2, 3]}, [2, 3], [1]),
        ({"routes": ["orders"]}, [1, 3], [2]),
        ({"routes": ["orders", "billing"]}, [1, 2, 3], []),
    ],
)
def test_close_ends_what_it_names(steering, agent, asked, closed, left):
    assert steering.close(asked) == {"closed": closed}
    assert agent.running == left


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({}, "name sessions or routes"),
        ({"sessions": [1], "routes": ["orders"]}, "name sessions or routes"),
        ({"sessions": [1, 4]}, "no session has the number 4"),
        ({"sessions": [True]}, "not a list of numbers"),
        ({"sessions": "1"}, "not a list of numbers"),
        ({"sessions": [1.0]}, "not a list of numbers"),
        ({"routes": "orders"}, "not a list of names"),
        ({"routes": [1]}, "not a list of names"),
        ({"routes": ["orders", "nowhere"]}, "no route that runs is named nowhere"),
    ],
)
def test_close_of_anything_else_ends_nothing(steering, agent, asked, why):
    with pytest.raises(Declined, match=why):
        steering.close(asked)
    assert len(agent.running) == 3


def test_pause_and_resume_say_what_they_have_changed(steering, agent):
    assert steering.pause({"routes": ["orders"]}) == {"paused": ["orders"], "sessions_left": {"orders": 2}}
    both = steering.pause({"routes": ["orders", "billing", "billing"]})
    assert both == {"paused": ["billing"], "sessions_left": {"orders": 2, "billing": 1}}
    assert steering.resume({"routes": ["orders"]}) == {"resumed": ["orders"]}
    assert steering.resume({"routes": ["orders"]}) == {"resumed": []}
    assert [each.is_paused for each in agent.forwarders()] == [False, True]


@pytest.mark.parametrize("asked", [{}, {"routes": []}, {"routes": ["disabled"]}, {"routes": ["orders", "nowhere"]}])
@pytest.mark.parametrize("what", ["pause", "resume"])
def test_a_route_that_does_not_run_cannot_be_paused_nor_others_with_it(steering, agent, asked, what):
    with pytest.raises(Declined):
        getattr(steering, what)(asked)
    assert not any(each.is_paused for each in agent.forwarders())


def test_retry_is_for_all_or_for_those_named(steering, agent):
    assert steering.retry({}) == {"retried": ["orders", "billing"]}
    assert steering.retry({"routes": ["billing"]}) == {"retried": ["billing"]}
    assert agent.retried == [None, ["billing"]]


@pytest.mark.parametrize("name", ["nowhere", "disabled"])
def test_retry_of_a_route_that_is_not_to_run_is_declined(steering, agent, name):
    with pytest.raises(Declined, match=f"no enabled route is named {name}"):
        steering.retry({"routes": ["billing", name]})
    assert agent.retried == []


def test_the_level_of_the_log_is_asked_for_and_given_back(steering):
    assert steering.log_level({"level": "debug"}) == {"level": "debug", "configured": "info"}
    assert steering.level() == {"level": "debug", "configured": "info"}
    assert steering.log_level({"level": ""}) == {"level": "info", "configured": "info"}


@pytest.mark.parametrize(
    "asked",
    [{}, {"level": "loud"}, {"level": None}, {"level": ["debug"]}, {"level": "critical"}]
    + [{"level": "debug", "for_s": bad} for bad in (-1, MAX_FOR_S + 1, "1", True, float("nan"), float("inf"))],
)
def test_a_level_or_time_that_does_not_exist_changes_nothing(steering, asked):
    with pytest.raises(Declined):
        steering.log_level(asked)
    assert steering.level()["level"] == "info"


def test_the_longest_time_is_taken(steering):
    assert steering.log_level({"level": "debug", "for_s": MAX_FOR_S})["level"] == "debug"
    steering.log_level({"level": ""})
