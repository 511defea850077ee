"""Decides the state of a route, for the log, status, page, metrics and health alike. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pomagent.errors import BearerForbidden, Recovery, RouteForbidden, TunnelError

State: TypeAlias = Literal[
    "untried", "up", "degraded", "down", "unauthenticated", "denied", "quarantined", "paused", "draining", "disabled"
]


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """The facts that decide the state of a route."""

    is_enabled: bool = True
    is_bound: bool = True
    """Whether the route has its listener; False for a quarantined route."""
    is_draining: bool = False
    is_paused: bool = False
    error: TunnelError | None = None
    """The failure of the last dial, or None after one that succeeded."""
    is_breaker_closed: bool = True
    still_serves: bool = False
    """Whether a warm tunnel or TLS connection may serve the next client although the last dial failed."""
    is_overrun: bool = False
    """Whether a session limit refuses clients."""
    has_succeeded: bool = False
    """Whether the gateway has ever accepted a CONNECT for the route."""
    is_short: bool = False
    """Whether the pool has been below its minimum for longer than a dial takes."""
    keeps_warm: bool = True
    """Whether the route keeps anything warm."""
    is_warm: bool = False
    """Whether something warm is ready for the next client."""


def state_of(route: RouteFacts) -> State:
    """Return the state of a route. The operator's commands come first, then errors, then the pool."""
    if not route.is_bound:
        return "quarantined" if route.is_enabled else "disabled"
    if route.is_draining or route.is_paused:
        return "draining" if route.is_draining else "paused"
    if route.error is not None:
        return _state_after(route.error, route)
    if route.is_overrun:
        return "degraded"
    if not route.has_succeeded:
        return "untried"
    return "degraded" if route.is_short else "up"


def is_ready(route: RouteFacts) -> bool:
    """Return whether a client may expect to be served; a route that keeps nothing warm is ready until a dial fails."""
    if route.is_overrun:
        return False
    state = state_of(route)
    return state in ("up", "degraded") or (state == "untried" and (route.is_warm or not route.keeps_warm))


def _state_after(error: TunnelError, route: RouteFacts) -> State:
    if error.recovery is Recovery.REAUTHENTICATE:
        return "unauthenticated"
    if isinstance(error, RouteForbidden | BearerForbidden):
        return "denied"
    return "degraded" if route.is_breaker_closed and route.still_serves else "down"
