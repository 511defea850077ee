"""Bounds the dials of one route that run at a time, and shares them between clients and refills. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MAX_DIALS_PER_ROUTE = 16
"""Maximum dials of one route at a time: a firewalled database holds each for 10 s at the gateway, and must not take all
of the gateway's places."""
MAX_REFILLS_PER_ROUTE = MAX_DIALS_PER_ROUTE // 2
"""Maximum refills among them. The other places are reserved for clients, so that hanging refills delay no client."""


@dataclass(frozen=True, slots=True)
class DialBudget:
    """The dials of one route that are under way, and how many more may begin."""

    client_count: int = 0
    """Dials that began because a client waits."""
    refill_count: int = 0
    """Dials that began to refill the pool."""

    @property
    def has_room(self) -> bool:
        return self.client_count + self.refill_count < MAX_DIALS_PER_ROUTE

    def with_client(self, change: int) -> DialBudget:
        """Return the budget after a client's dial has begun (1) or ended (-1)."""
        return DialBudget(self.client_count + change, self.refill_count)

    def with_refill(self, change: int) -> DialBudget:
        """Return the budget after a refill has begun (1) or ended (-1)."""
        return DialBudget(self.client_count, self.refill_count + change)

    def needed_by_clients(self, waiting_count: int) -> int:
        """Return how many dials to begin for waiting clients: one each, within the limit."""
        return max(0, min(waiting_count, MAX_DIALS_PER_ROUTE - self.refill_count) - self.client_count)

    def needed_by_refills(self, missing_count: int, waiting_count: int) -> int:
        """Return how many refills to begin. Clients' dials count as refills once the clients have left."""
        orphaned = max(0, self.client_count - waiting_count)
        room = min(MAX_REFILLS_PER_ROUTE, MAX_DIALS_PER_ROUTE - self.client_count) - self.refill_count
        return max(0, min(missing_count - self.refill_count - orphaned, room))

    def suffices_without_one(self, waiting_count: int) -> bool:
        """Return whether every waiting client still has a dial if one of the clients' dials fails."""
        return self.client_count > waiting_count


NO_DIALS = DialBudget()
