"""Imports lead to lower floors only, and pure modules import no sockets, clocks, greenlets or logs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pomagent

ROOT = Path(pomagent.__file__).parent

FLOORS = [
    {""},
    {"errors", "log", "runtime"},
    {"settings", "route_state"},
    {"protocol"},
    {"config", "transport"},
    {"credentials", "listeners", "reload"},
    {"gateway"},
    {"pool", "sessions"},
    {"forwarder"},
    {"revocation", "routes"},
    {"agent"},
    {"admin"},
    {"daemon"},
    {"cli"},
    {"__main__"},
]
"""Packages and top-level modules from the ground up. The empty name is the package itself, for its version.

A module imports from lower floors only. Packages on one floor do not import each other. Modules of a
package import each other without a cycle.
"""
PURE = {
    "protocol": {"h11", "hpack", "idna"},
    "route_state": set(),
    "errors": set(),
    "settings": {"pydantic"},
    "log.events": set(),
    "runtime.deadline": set(),
    "runtime.printable": set(),
    "reload.plan": set(),
    "credentials.refresh_schedule": set(),
    "credentials.header": {"pydantic"},
    "gateway.handshake_admission": set(),
    "gateway.address_health": set(),
    "gateway.mass_loss": set(),
    "gateway.failure_log": set(),
    "gateway.clock_offset": set(),
    "pool.backoff": set(),
    "pool.breaker": set(),
    "pool.decisions": set(),
    "pool.demand": set(),
    "pool.dial_budget": set(),
    "pool.early_closes": set(),
    "pool.expiring_queue": set(),
    "pool.greeting": set(),
    "pool.hidden_timeouts": set(),
    "pool.outage": set(),
    "pool.presets": set(),
    "pool.refill_pacing": set(),
    "pool.waiters": set(),
    "pool.warm_policy": set(),
}
"""Modules and packages without sockets, clocks, greenlets and logs, and the libraries that they may use."""
CONFIG_KNOWS = {"errors", "settings", "protocol", "runtime.files"}
"""Imports of ``config`` besides itself, so that commands read a file like the agent."""
IMPURE = {"socket", "select", "selectors", "ssl", "threading", "asyncio", "subprocess", "logging"}


def name_of(path: Path) -> str:
    """Return the dotted name below the package: ``protocol.connect``, or ``protocol`` for its ``__init__``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the full names of everything that a module imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(full_name: str) -> str | None:
    """Return the module of the package that an import leads to, None for a library."""
    top, _, rest = full_name.partition(".")
    if top != "pomagent":
        return None
    while rest and rest not in SOURCES:
        rest = rest.rpartition(".")[0]  # a name in a module, not a module
    return rest


GRAPH = {
    name: {target for target in map(ours, imported(tree)) if target is not None and target != name}
    for name, tree in SOURCES.items()
}
MODULES = sorted(set(GRAPH) - {""})


def top_of(name: str) -> str:
    return name.partition(".")[0]


def floor_of(name: str) -> int:
    return next((number for number, floor in enumerate(FLOORS) if top_of(name) in floor), -1)


def third_parties(name: str) -> set[str]:
    tops = {full_name.partition(".")[0] for full_name in imported(SOURCES[name])}
    return tops - set(sys.stdlib_module_names) - {"pomagent"}


def purity(name: str) -> set[str] | None:
    """Return the libraries that a pure module may use, None for a module that need not be pure."""
    return PURE.get(name, PURE.get(top_of(name)))


def test_every_module_stands_on_a_floor():
    assert [name for name in MODULES if floor_of(name) < 0] == [], "place it in FLOORS"


def test_every_name_on_a_floor_has_its_module():
    assert set() == {name for floor in FLOORS for name in floor} - set(GRAPH), "remove it from FLOORS"


def test_top_of_the_package_has_few_modules():
    at_the_top = {path.stem for path in ROOT.glob("*.py")}
    assert at_the_top <= {
        "__init__", "__main__", "agent", "forwarder", "revocation", "settings", "route_state",
        "errors",
    }  # fmt: skip


@pytest.mark.parametrize("package", [path.parent.name for path in sorted(ROOT.glob("*/__init__.py"))])
def test_every_package_states_its_charter(package):
    assert ast.get_docstring(SOURCES[package])


@pytest.mark.parametrize("name", MODULES)
def test_imports_lead_down(name):
    def is_allowed(target: str) -> bool:
        return top_of(target) == top_of(name) or floor_of(target) < floor_of(name)

    assert [target for target in sorted(GRAPH[name]) if not is_allowed(target)] == []


@pytest.mark.parametrize("name", [name for name in MODULES if top_of(name) == "config"])
def test_config_imports_little_besides_itself(name):
    others = {target for target in GRAPH[name] if top_of(target) not in {"", "config"}}
    assert set() == {target for target in others if not {target, top_of(target)} & CONFIG_KNOWS}


def test_imports_have_no_cycle():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for target in GRAPH[name]:
                visit(target, (*path, name))
            done.add(name)

    for name in GRAPH:
        visit(name, ())


@pytest.mark.parametrize("name", [name for name in MODULES if purity(name) is not None])
def test_pure_module_imports_only_pure_modules_and_its_libraries(name):
    libraries = purity(name)
    assert libraries is not None
    allowed = {"", *(other for other in MODULES if purity(other) is not None)}
    assert set() == GRAPH[name] - allowed
    assert set() == third_parties(name) - libraries
    assert set() == {full_name.partition(".")[0] for full_name in imported(SOURCES[name])} & IMPURE


@pytest.mark.parametrize("name", [name for name in MODULES if purity(name) is not None])
def test_pure_module_calls_no_clock_and_no_dice(name):
    """``time.monotonic`` may be a default that callers replace."""
    called = {ast.unparse(node.func) for node in ast.walk(SOURCES[name]) if isinstance(node, ast.Call)}
    assert set() == {call for call in called if call.partition(".")[0] in {"time", "random", "datetime"}}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_module_has_no_monkey_patching_and_no_greenlet_without_owner(name):
    banned = {"gevent.monkey", "gevent.spawn", "gevent.spawn_later", "gevent.spawn_raw", "gevent.Greenlet.spawn"}
    assert set() == set(imported(SOURCES[name])) & banned
    used = {ast.unparse(node) for node in ast.walk(SOURCES[name]) if isinstance(node, ast.Attribute)}
    assert set() == used & {*banned, "Greenlet.spawn", "Greenlet.spawn_later", "time.sleep"}


def test_importing_the_package_imports_no_module_of_it():
    assert set() == GRAPH[""]
    assert set() == third_parties("")
