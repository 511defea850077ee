"""Whose handshake with a gateway may begin: a cap, applications before refills, and a rate for the refills. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from pomagent.gateway.mass_loss import REFILLS_PER_S

W = TypeVar("W")

BURST = 20
"""Refills that may begin at once after a quiet time: the pools of a small agent fill without a wait."""


class Admission(Generic[W]):
    """Two lines before one door. What applications dial counts to the rate, but never waits for it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._urgent: OrderedDict[W, None] = OrderedDict()
        self._others: OrderedDict[W, None] = OrderedDict()
        self._allowance = float(BURST)
        self._counted_at = 0.0
        self.under_way = 0

    @property
    def waiting(self) -> int:
        return len(self._urgent) + len(self._others)

    def ask(self, waiter: W, *, urgent: bool) -> None:
        """Join the line; ``urgent``: an application waits for it."""
        (self._urgent if urgent else self._others)[waiter] = None

    def next(self, now: float) -> W | None:
        """Let in whoever is next, if anybody may be now; its handshake counts until ``done``."""
        if self.under_way >= self.limit:
            return None
        self._count(now)
        line = self._urgent or (self._others if self._allowance >= 1 else None)
        if not line:
            return None
        self._allowance = max(self._allowance - 1, -BURST)
        self.under_way += 1
        return line.popitem(last=False)[0]

    def next_at(self) -> float | None:
        """When the rate lets in the next refill; None if nobody waits for that."""
        if not self._others or self._urgent or self.under_way >= self.limit:
            return None
        return self._counted_at + max(0.0, 1 - self._allowance) / REFILLS_PER_S

    def leave(self, waiter: W) -> None:
        """Forget one that waits no more."""
        self._urgent.pop(waiter, None)
        self._others.pop(waiter, None)

    def done(self) -> None:
        """A handshake that was let in is over."""
        self.under_way -= 1

    def _count(self, now: float) -> None:
        self._allowance = min(BURST, self._allowance + (now - self._counted_at) * REFILLS_PER_S)
        self._counted_at = now
