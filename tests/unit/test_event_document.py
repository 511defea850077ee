"""docs/events.md lists exactly the events, levels and fields that the code logs."""

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
    "fields": {"credential", "gateway"},
    "result": {"version", "pid", "sessions_left"},
    "self._user.fields": {"uid", "user"},
    "{'reason': reason} if reason else {}": {"reason"},
    "tunnel.timings.fields": {"tcp_ms", "tls_ms", "connect_ms"},
    "self._take_unlogged()": {"unlogged"},
    "{'cause': end.cause} if end.cause else {}": {"cause"},
    "logged": {"arguments"},
}
"""The fields behind each ``**`` of a call."""
OF_A_ROUTE = {"protocol", "warm", "why"}
NOT_AT_A_CALL = {
    "log.dropped": ({"warning"}, {"count"}),  # logged by the writer itself
    "route.classified": ({"info"}, OF_A_ROUTE),  # these three are logged by RouteHistory.log_policy
    "route.promoted": ({"info"}, OF_A_ROUTE),
    "route.demoted": ({"warning"}, OF_A_ROUTE),
}
"""Levels and fields of events that are logged at another place than they are named."""

EVENTS = {f"events.{name}": value for name, value in vars(events).items() if name.isupper()}
SOURCES = [ast.parse(path.read_text()) for path in sorted(Path(pomagent.__file__).parent.rglob("*.py"))]
spread_seen: set[str] = set()


def functions() -> Iterator[ast.FunctionDef]:
    """Yield every function of the package. Nested functions appear within the outer ones too."""
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
    """Return the level of the called method, or the levels of the methods that the called name may refer to."""
    if isinstance(call.func, ast.Attribute):
        return {call.func.attr} & LEVELS
    name = ast.unparse(call.func)
    values = [
        node.value for node in ast.walk(within) if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return {node.attr for value in values for node in ast.walk(value) if isinstance(node, ast.Attribute)} & LEVELS


def logged() -> dict[str, tuple[set[str], set[str]]]:
    """Return levels and fields of every event from the calls that log it."""
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
    """Return the fields that loggers bind."""
    binds = [
        call
        for tree in SOURCES
        for call in calls(tree)
        if isinstance(call.func, ast.Attribute) and call.func.attr == "bind"
    ]
    return {keyword.arg for call in binds for keyword in call.keywords if keyword.arg}


LOGGED = logged()
BOUND = bound()


def test_document_and_code_have_the_same_events():
    assert set(EVENTS.values()) == set(event_document.events())
    assert set(LOGGED) == set(event_document.events()), "an event that is never logged"


@pytest.mark.parametrize("event", sorted(LOGGED))
def test_event_has_the_fields_of_the_document(event):
    documented = event_document.events()[event].fields
    assert LOGGED[event][1] - documented == set(), "not in the document"
    assert documented - LOGGED[event][1] - BOUND == set(), "not in the code"


@pytest.mark.parametrize("event", sorted(LOGGED))
def test_event_has_the_levels_of_the_document(event):
    assert LOGGED[event][0] == event_document.events()[event].levels


def test_every_entry_for_spread_fields_is_used():
    assert spread_seen == set(SPREAD)


def test_document_explains_exactly_the_fields_in_use():
    used = {name for documented in event_document.events().values() for name in documented.fields}
    assert used == event_document.explained()


def test_no_field_has_the_name_of_one_that_every_event_has():
    taken = {name for documented in event_document.events().values() for name in documented.fields}
    assert taken & event_document.ALWAYS == set()


def test_documented_line_meets_no_objection():
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
def test_undocumented_event_level_or_field_is_found(change, objection):
    line = {"event": "config.unchanged", "timestamp": "", "level": "debug", "sha": "0f"} | change
    assert objections(line) == [objection]


def test_missing_field_is_found_unless_it_is_optional(monkeypatch):
    table = {"config.rejected": Documented(frozenset({"error"}), frozenset({"path", "problems"}), frozenset({"path"}))}
    monkeypatch.setattr(event_document, "events", lambda: table)
    line = {"event": "config.rejected", "timestamp": "", "level": "error"}
    assert shortcomings(line) == ["docs/events.md has problems in every config.rejected"]
