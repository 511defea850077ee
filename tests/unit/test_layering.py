"""Imports go one way: who may know whom, and what the pure modules do without."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pomagent

ROOT = Path(pomagent.__file__).parent

# From the top down: a module imports from layers below its own, never from its own or one above. A package that is
# named stands for all its modules, which know one another without a cycle. A new module is placed here, deliberately.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"service"},
    {"telling", "preload", "succession"},
    {"handover", "steering", "drain", "watchdog", "diagnosis"},
    {"upgrade"},
    {"control", "status", "login"},
    {"agent", "reload", "last_good", "watch", "log_boundary", "recent"},
    {"recheck", "quarantine"},
    {"forwarder", "gateways", "listeners"},
    {"socket_store"},
    {"session", "pool", "connector", "listener", "token_sources", "edge"},
    {"session_log"},
    {"caller", "surroundings", "verbosity"},
    {"relay", "tunnel", "client", "stdio", "credentials", "places", "counts", "session_facts"},
    {
        "dial",
        "goodbye",
        "read_ahead",
        "turns",
        "interrupt",
        "crew",
        "half_close",
        "holder",
        "watch_facts",
        "bind",
        "inherited",
        "edge_http",
        "connect",
        "local_user",
        "users",
    },
    {"gate", "gateway_watch"},
    {"admission", "token_command", "token_life", "hop", "forward_proxy", "edge_proxy"},
    {"happy_eyeballs", "address_book", "losses", "gateway_counts", "failures", "systemd", "plan"},
    {"http2_stream"},
    {"tls_over_socket", "tls_over_memory"},
    {"resolver", "tls", "tls_stream", "tls_sessions", "sockdiag"},
    {"stream"},
    {"threads", "deadline", "tcp", "cipher_order"},
    {"config"},
    {"presets", "clock_offset", "histogram"},
    {"protocol"},
    {"log"},
    {"settings", "log_writer", "log_lines"},
    {"errors", "events", "journal", "repeats"},
]
LEAVES = {
    "errors",
    "events",
    "deadline",
    "tcp",
    "cipher_order",
    "threads",
    "journal",
    "repeats",
    "sockdiag",
    "systemd",
    "watch_facts",
    "places",
    "histogram",
    "session_facts",
}
"""They import nothing of ours."""
FOUNDATIONS = {"", "errors", "settings"}
"""What pure modules may know beyond one another; the empty name is the package itself, for its version."""
PURE = {
    "protocol": {"h11", "hpack", "idna"},
    "plan": set(),
    "deadline": set(),
    "pool": set(),
    "presets": set(),
    "admission": set(),
    "address_book": set(),
    "losses": set(),
    "failures": set(),
    "clock_offset": set(),
    "token_life": set(),
    "errors": set(),
    "events": set(),
    "settings": {"pydantic"},
}
"""Modules and packages without sockets, clocks, greenlets and logs, and the libraries that they may use."""
ACTING = {
    "pool",
    "pool.alarm",
    "pool.reserve",
    "pool.pool",
    "pool.shelf",
    "pool.supplier",
    "pool.keeper",
    "pool.standing",
}
"""The parts of a pure package that act on what the others decide."""
IMPURE = {"socket", "select", "selectors", "ssl", "threading", "asyncio", "subprocess", "logging"}


def name_of(path: Path) -> str:
    """Dotted, below the package: ``protocol.connect``, or ``protocol`` for the package's own file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of all that is imported anywhere in a module, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(full_name: str) -> str | None:
    """The module of the package that an import leads to, None for anybody else's."""
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


def layer_of(name: str) -> int:
    top = name.partition(".")[0]
    return next((index for index, layer in enumerate(LAYERS) if top in layer), -1)


def third_parties(name: str) -> set[str]:
    tops = {full_name.partition(".")[0] for full_name in imported(SOURCES[name])}
    return tops - set(sys.stdlib_module_names) - {"pomagent"}


def purity(name: str) -> set[str] | None:
    """The libraries that a pure module may use; None for a module that need not be pure."""
    return None if name in ACTING else PURE.get(name.partition(".")[0])


def test_every_module_has_its_place():
    assert [name for name in MODULES if layer_of(name) < 0] == [], "place it in LAYERS"


def test_every_place_has_its_module():
    assert set() == {name for layer in LAYERS for name in layer} - set(MODULES), "remove it from LAYERS"


@pytest.mark.parametrize("name", MODULES)
def test_imports_lead_down(name):
    def is_allowed(target: str) -> bool:
        same_package = "." in name + target and name.partition(".")[0] == target.partition(".")[0]
        return target == "" or same_package or layer_of(target) > layer_of(name)

    assert [target for target in sorted(GRAPH[name]) if not is_allowed(target)] == []


def test_there_is_no_cycle():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for target in GRAPH[name]:
                visit(target, (*path, name))
            done.add(name)

    for name in GRAPH:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_a_leaf_imports_nothing_of_ours(name):
    assert set() == GRAPH[name]


@pytest.mark.parametrize("name", [name for name in MODULES if purity(name) is not None])
def test_a_pure_module_knows_no_more_than_it_may(name):
    libraries = purity(name)
    assert libraries is not None
    allowed = {*FOUNDATIONS, *(other for other in MODULES if purity(other) is not None)}
    assert set() == GRAPH[name] - allowed
    assert set() == third_parties(name) - libraries
    assert set() == {full_name.partition(".")[0] for full_name in imported(SOURCES[name])} & IMPURE


@pytest.mark.parametrize("name", [name for name in MODULES if purity(name) is not None])
def test_a_pure_module_asks_no_clock_and_throws_no_dice(name):
    """``time.monotonic`` as a default that a caller may replace is the one exception."""
    called = {ast.unparse(node.func) for node in ast.walk(SOURCES[name]) if isinstance(node, ast.Call)}
    assert set() == {call for call in called if call.partition(".")[0] in {"time", "random", "datetime"}}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_nothing_is_monkey_patched_and_every_greenlet_has_an_owner(name):
    banned = {"gevent.monkey", "gevent.spawn", "gevent.spawn_later", "gevent.spawn_raw", "gevent.Greenlet.spawn"}
    assert set() == set(imported(SOURCES[name])) & banned
    used = {ast.unparse(node) for node in ast.walk(SOURCES[name]) if isinstance(node, ast.Attribute)}
    assert set() == used & {*banned, "Greenlet.spawn", "Greenlet.spawn_later", "time.sleep"}


def test_importing_the_package_imports_none_of_it():
    assert set() == GRAPH[""]
    assert set() == third_parties("")
