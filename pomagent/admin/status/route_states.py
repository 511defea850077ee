"""How each route is, in one word, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from pomagent.agent import Agent
from pomagent.errors import RoutePaused
from pomagent.route_state import State
from pomagent.settings import Route

STATES: tuple[State, ...] = get_args(State)
"""Every state, for metrics that count routes by state."""


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """One route as it is now."""

    name: str
    state: State
    reason: str
    """A sentence with the remedy; empty if nothing is wrong."""
    is_ready: bool
    """Whether a client may expect to be served. What keeps nothing warm is ready until a client finds otherwise."""


def route_status(route: Route, agent: Agent) -> RouteStatus:
    """The state of one route of the running settings. Does not block."""
    forwarder = agent.forwarder(route.name)
    if not route.enabled:
        return RouteStatus(route.name, "disabled", "", is_ready=False)
    if forwarder is None:
        return RouteStatus(route.name, "quarantined", agent.quarantined.get(route.name, ""), is_ready=False)
    state = forwarder.state
    expects = state == "untried" and (forwarder.pool.keeping.level == "off" or forwarder.pool.status.is_warm)
    reason = str(RoutePaused(route.name) if state == "paused" else forwarder.pool.last_error or "") or forwarder.overrun
    is_ready = (expects or state in ("up", "degraded")) and not forwarder.overrun
    return RouteStatus(route.name, state, reason, is_ready=is_ready)
