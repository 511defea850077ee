"""How many dials of one route may be under way, and for whom. Pure."""

from __future__ import annotations

MAX_DIALS_PER_ROUTE = 16
"""At a time; one firewalled database holds each for 10 s at the gateway and must not take all its places."""
MAX_REFILLS_PER_ROUTE = MAX_DIALS_PER_ROUTE // 2
"""The other places are the clients': a refill that hangs does not make one wait for its own dial."""


class DialBudget:
    """The dials under way of one route."""

    def __init__(self) -> None:
        self.by_clients = 0
        """Under way because a client waits."""
        self.by_stock = 0
        """Under way to fill up."""

    def wanted_by_clients(self, waiting: int) -> int:
        """How many to begin for those who wait: one each, within the cap."""
        return max(0, min(waiting, MAX_DIALS_PER_ROUTE - self.by_stock) - self.by_clients)

    def wanted_by_stock(self, missing: int, waiting: int) -> int:
        """How many to begin so that nothing is missing, counting what clients ordered and no longer need."""
        left_over = max(0, self.by_clients - waiting)
        session_limit = min(MAX_REFILLS_PER_ROUTE, MAX_DIALS_PER_ROUTE - self.by_clients) - self.by_stock
        return max(0, min(missing - self.by_stock - left_over, session_limit))

    def suffice_without_one(self, waiting: int) -> bool:
        """Whether, if one of the clients' dials fails, the others are enough for everybody who waits."""
        return self.by_clients > waiting
