"""Answers health probes from known state. No probe causes traffic to a gateway or a destination. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

MAX_NAMED = 50
"""Maximum routes that one answer explains. The rest is counted."""


class Readiness(Protocol):
    """The part of ``RouteStatus`` that probes need."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def is_ready(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Health:
    """The answer to a probe."""

    status: HTTPStatus
    text: str


OK = Health(HTTPStatus.OK, "ok\n")
STARTING = Health(HTTPStatus.SERVICE_UNAVAILABLE, "starting: the configuration is not in effect yet\n")
DRAINING = Health(HTTPStatus.SERVICE_UNAVAILABLE, "draining: the agent is stopping\n")


def readiness(routes: Sequence[Readiness], require: str) -> Health:
    """Check the routes against ``require``: empty, ``any``, ``all``, or comma-separated names."""
    enabled = [route for route in routes if route.state != "disabled"]
    if not require:
        return OK
    if require == "any":
        return OK if any(route.is_ready for route in enabled) else _unready(enabled, "no route is ready")
    if require == "all":
        return _all_of(enabled)
    by_name = {route.name: route for route in routes}
    names = [name for name in require.split(",") if name]
    unknown = [name for name in names if name not in by_name]
    if unknown or not names:
        return _unknown(unknown)
    return _all_of([by_name[name] for name in names])


def readiness_of(routes: Mapping[str, Readiness], name: str) -> Health:
    """Report whether one route is ready, and the reason if not."""
    route = routes.get(name)
    if route is None:
        return _unknown([name])
    return Health(HTTPStatus.OK if route.is_ready else HTTPStatus.SERVICE_UNAVAILABLE, f"{_described(route)}\n")


def _all_of(routes: Sequence[Readiness]) -> Health:
    unready = [route for route in routes if not route.is_ready]
    return (
        _unready(unready, f"{len(unready)} of {len(routes)} {'route' if len(routes) == 1 else 'routes'} not ready")
        if unready
        else OK
    )


def _unready(routes: Sequence[Readiness], first: str) -> Health:
    lines = [first, *(f"{route.name}: {_described(route)}" for route in routes[:MAX_NAMED])]
    if len(routes) > MAX_NAMED:
        lines.append(f"and {len(routes) - MAX_NAMED} more")
    return Health(HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(lines) + "\n")


def _unknown(names: Sequence[str]) -> Health:
    """The answer for unknown names, which it does not repeat."""
    which = f"{len(names)} unknown {'route' if len(names) == 1 else 'routes'}" if names else "no route is named"
    return Health(HTTPStatus.NOT_FOUND, f"{which}; expected any, all, or route names separated by commas\n")


def _described(route: Readiness) -> str:
    return f"{route.state}: {route.reason}" if route.reason else route.state
