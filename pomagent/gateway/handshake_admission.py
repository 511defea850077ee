"""Decides which handshake with a gateway begins next: a limit for all, clients first, a rate for refills. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from pomagent.gateway.mass_loss import REFILLS_PER_S

W = TypeVar("W")

BURST = 20
"""Refills that may begin at once after a quiet time, so that the pools of a small agent fill without a wait."""


class Admission(Generic[W]):
    """Two queues for one limit. Handshakes for clients count toward the rate, but never wait for it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._urgent: OrderedDict[W, None] = OrderedDict()
        self._refills: OrderedDict[W, None] = OrderedDict()
        self._allowance = float(BURST)
        self._counted_at = 0.0
        self.under_way = 0

    @property
    def waiting(self) -> int:
        return len(self._urgent) + len(self._refills)

    def join(self, waiter: W, *, urgent: bool) -> None:
        """Queue a handshake, which is ``urgent`` if a client waits for it."""
        (self._urgent if urgent else self._refills)[waiter] = None

    def admit(self, now: float) -> W | None:
        """Return the next handshake if one may begin now. It counts until ``done``."""
        if self.under_way >= self.limit:
            return None
        self._count(now)
        queue = self._urgent or (self._refills if self._allowance >= 1 else None)
        if not queue:
            return None
        self._allowance = max(self._allowance - 1, -BURST)
        self.under_way += 1
        return queue.popitem(last=False)[0]

    def next_at(self) -> float | None:
        """Return when the rate admits the next refill. None if no refill waits for the rate."""
        if not self._refills or self._urgent or self.under_way >= self.limit:
            return None
        return self._counted_at + max(0.0, 1 - self._allowance) / REFILLS_PER_S

    def leave(self, waiter: W) -> None:
        """Remove a handshake that no longer waits."""
        self._urgent.pop(waiter, None)
        self._refills.pop(waiter, None)

    def done(self) -> None:
        """Free the place of an admitted handshake that is over."""
        self.under_way -= 1

    def _count(self, now: float) -> None:
        self._allowance = min(BURST, self._allowance + (now - self._counted_at) * REFILLS_PER_S)
        self._counted_at = now
