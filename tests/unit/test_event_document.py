"""docs/events.md says what the code logs: every event, level and field, and nothing else."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import pomagent
from pomagent.log import events
from tests.support.agent import event_document
from tests.support.agent.event_document import Documented, objections, shortcomings

LEVELS = {"debug", "info", "warning", "error", "critical"}
SPREAD = {
    "self._named": {"gateway", "destination"},
    "named": {"credential", "gateway"},
    "result": {"version", "pid", "sessions_left"},
    "self._caller.fields": {"uid", "user"},
    "{'reason': reason} if reason else {}": {"reason"},
    "self._left_out()": {"unlogged"},
    "{'cause': end.cause} if end.cause else {}": {"cause"},
    "said": {"arguments"},
    "ages": {"ended_after_ms", "retry_in_ms"},
}
"""What the ``**`` of calls stands for."""
OF_A_ROUTE = {"protocol", "warm", "why"}
NOT_AT_A_CALL = {
    "log.dropped": ({"warning"}, {"count"}),  # the writer's own
    "route.classified": ({"info"}, OF_A_ROUTE),  # these three by way of Keeper.tell_level
    "route.promoted": ({"info"}, OF_A_ROUTE),
    "route.demoted": ({"warning"}, OF_A_ROUTE),
}
"""Levels and fields that do not stand where an event is named."""

EVENTS = {f"events.{name}": value for name, value in vars(events).items() if name.isupper()}
SOURCES = [ast.parse(path.read_text()) for path in sorted(Path(pomagent.__file__).parent.rglob("*.py"))]
spread_seen: set[str] = set()


def functions() -> Iterator[ast.FunctionDef]:
    """The innermost come with those around them, whose calls are the same."""
    yield from (node for tree in SOURCES for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def calls(within: ast.AST) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(within) if isinstance(node, ast.Call))


def fields_of(call: ast.Call) -> set[str]:
    found = {keyword.arg for keyword in call.keywords if keyword.arg}
    for keyword in call.keywords:
        if keyword.arg is None:
            what = ast.unparse(keyword.value)
            spread_seen.add(what)
            found |= SPREAD[what]
    return found


def levels_of(call: ast.Call, within: ast.FunctionDef) -> set[str]:
    """Of the method that is called, or of those that the called name may stand for."""
    if isinstance(call.func, ast.Attribute):
        return {call.func.attr} & LEVELS
    name = ast.unparse(call.func)
    values = [
        node.value for node in ast.walk(within) if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return {node.attr for value in values for node in ast.walk(value) if isinstance(node, ast.Attribute)} & LEVELS


def logged() -> dict[str, tuple[set[str], set[str]]]:
    """Levels and fields of every event, as they stand at the calls that log it."""
    found: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for function in functions():
        for call in calls(function):
            event = ast.unparse(call.args[0]) if call.args else ""
            if event in EVENTS:
                levels, fields = found[EVENTS[event]]
                levels |= levels_of(call, function)
                fields |= fields_of(call)
    for event, (levels, fields) in NOT_AT_A_CALL.items():
        found[event][0].update(levels)
        found[event][1].update(fields)
    return dict(found)


def bound() -> set[str]:
    """What loggers are given to say in each of their lines."""
    binds = [
        call
        for tree in SOURCES
        for call in calls(tree)
        if isinstance(call.func, ast.Attribute) and call.func.attr == "bind"
    ]
    return {keyword.arg for call in binds for keyword in call.keywords if keyword.arg}


LOGGED = logged()
BOUND = bound()


def test_every_event_of_the_code_is_in_the_document_and_every_one_of_the_document_in_the_code():
    assert set(EVENTS.values()) == set(event_document.events())
    assert set(LOGGED) == set(event_document.events()), "an event that nobody logs"


@pytest.mark.parametrize("event", sorted(LOGGED))
def test_an_event_has_the_fields_of_the_document(event):
    documented = event_document.events()[event].fields
    assert LOGGED[event][1] - documented == set(), "not in the document"
    assert documented - LOGGED[event][1] - BOUND == set(), "not in the code"


@pytest.mark.parametrize("event", sorted(LOGGED))
def test_an_event_has_the_levels_of_the_document(event):
    assert LOGGED[event][0] == event_document.events()[event].levels


def test_what_is_said_here_of_spread_fields_is_still_needed():
    assert spread_seen == set(SPREAD)


def test_every_field_is_explained_and_nothing_else():
    used = {name for documented in event_document.events().values() for name in documented.fields}
    assert used == event_document.explained()


def test_no_field_takes_the_place_of_one_that_every_event_has():
    taken = {name for documented in event_document.events().values() for name in documented.fields}
    assert taken & event_document.ALWAYS == set()


def test_a_line_that_is_as_the_document_says_meets_no_objection():
    line = {"event": "config.unchanged", "timestamp": "", "level": "debug", "sha": "0f"}
    assert shortcomings(line) == []


@pytest.mark.parametrize(
    ("change", "objection"),
    [
        ({"event": "config.eaten"}, "docs/events.md has no config.eaten"),
        ({"level": "info"}, "docs/events.md has no config.unchanged at level info"),
        ({"crumbs": 3}, "docs/events.md has no field crumbs of config.unchanged"),
    ],
)
def test_a_line_that_is_not_as_the_document_says_is_found(change, objection):
    line = {"event": "config.unchanged", "timestamp": "", "level": "debug", "sha": "0f"} | change
    assert objections(line) == [objection]


def test_a_line_that_lacks_a_field_is_found_unless_the_field_may_be_missing(monkeypatch):
    table = {"config.rejected": Documented(frozenset({"error"}), frozenset({"path", "problems"}), frozenset({"path"}))}
    monkeypatch.setattr(event_document, "events", lambda: table)
    line = {"event": "config.rejected", "timestamp": "", "level": "error"}
    assert shortcomings(line) == ["docs/events.md has problems in every config.rejected"]
