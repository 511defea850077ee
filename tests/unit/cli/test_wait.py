"""Conditions that ``pomagent wait`` waits for."""

from typing import Any

import click
import pytest

from pomagent.cli.wait import missing

UP = {"name": "up", "state": "up", "reason": "", "is_ready": True}
UNTRIED = {"name": "untried", "state": "untried", "reason": "", "is_ready": False}
DOWN = {"name": "down", "state": "down", "reason": "503; look at its server", "is_ready": False}
DISABLED = {"name": "off", "state": "disabled", "reason": "", "is_ready": False}


def answer(*routes: dict[str, Any], is_ready: bool = True) -> dict[str, Any]:
    return {"is_ready": is_ready, "routes": list(routes)}


@pytest.mark.parametrize(
    ("names", "want_all", "expected"),
    [
        ([], False, []),
        (["up"], False, []),
        (["down"], False, ["down: down: 503; look at its server"]),
        (["up", "untried", "untried"], False, ["untried: untried"]),
        ([], True, ["untried: untried", "down: down: 503; look at its server"]),
        (["up"], True, ["untried: untried", "down: down: 503; look at its server"]),
        (["off"], False, ["off: disabled"]),
    ],
)
def test_only_the_requested_routes_are_reported_as_missing(
    names: list[str], want_all: bool, expected: list[str]
) -> None:
    assert list(missing(answer(UP, UNTRIED, DOWN, DISABLED), names, want_all=want_all)) == expected


def test_a_stopping_agent_is_not_ready() -> None:
    assert list(missing(answer(UP, is_ready=False), ["up"], want_all=False)) == ["the agent is stopping"]


def test_an_unknown_route_is_a_usage_error() -> None:
    with pytest.raises(click.UsageError, match="no route is named nowhere"):
        list(missing(answer(UP), ["up", "nowhere"], want_all=False))
