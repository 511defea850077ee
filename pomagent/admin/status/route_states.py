"""Each route's state with the reason, for status, metrics and health."""

from __future__ import annotations

from dataclasses import dataclass

from pomagent.agent import Agent
from pomagent.errors import RoutePaused
from pomagent.route_state import RouteFacts, State, is_ready, state_of
from pomagent.settings import Route


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """The state of one route at one moment."""

    name: str
    state: State
    reason: str
    """A sentence with the remedy, empty if nothing is wrong."""
    is_ready: bool
    """Whether a client may expect to be served."""


def route_status(route: Route, agent: Agent) -> RouteStatus:
    """Return the status of one route of the running settings. Does not block."""
    forwarder = agent.forwarder(route.name)
    if forwarder is None:
        facts = RouteFacts(is_enabled=route.enabled, is_bound=False)
        return RouteStatus(route.name, state_of(facts), agent.quarantined.get(route.name, ""), is_ready(facts))
    state = forwarder.state
    error = RoutePaused(route.name) if state == "paused" else forwarder.pool.last_error
    reason = forwarder.unreachable or str(error or "") or forwarder.overrun
    return RouteStatus(route.name, state, reason, is_ready(forwarder.facts))
