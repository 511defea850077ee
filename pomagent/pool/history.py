"""What is remembered of a route beyond the life of one pool: after a rotated token nothing has to be learned again."""

from __future__ import annotations

from collections import Counter

from pomagent.pool.early_closes import EarlyEnds
from pomagent.pool.hidden_timeouts import Periods
from pomagent.pool.warm_policy import WarmPolicy
from pomagent.settings import Route


class RouteHistory:
    """The server's habits, and counters that never go back."""

    def __init__(self, route: Route, now: float) -> None:
        self._route = route
        self.warmth = WarmPolicy(route, now)
        self.early_ends = EarlyEnds()
        self.periods = Periods()
        self.takes: Counter[str] = Counter()
        """How clients were served: with a warm ``tunnel``, over a warm ``tls`` connection, or ``cold``."""
        self.refusals: Counter[str] = Counter()
        """Clients without a tunnel: the line was ``full``, none came in time (``starved``), or the dial ``failed``."""
        self.discards: Counter[str] = Counter()
        """Tunnels that were closed without having served anybody, by reason."""
        self.failures: Counter[str] = Counter()
        """Dials that failed, by the name of the error."""

    def follow(self, route: Route, now: float) -> None:
        """Go on under changed settings; what was learned is forgotten if it was another server, or wish."""
        old, self._route = self._route, route
        if _of_the_server(old) != _of_the_server(route):
            self.warmth, self.early_ends, self.periods = WarmPolicy(route, now), EarlyEnds(), Periods()
        else:
            self.warmth.follow(route)


def _of_the_server(route: Route) -> tuple[object, ...]:
    return route.destination, route.gateway.address, route.protocol, route.warm
