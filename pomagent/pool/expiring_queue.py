"""Tunnels in the order in which they were opened, each with a maximum age. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from pomagent.pool.backoff import Dice

T = TypeVar("T")

AGE_JITTER = 0.2
"""Share of the maximum age by which lives are shortened at random, so that tunnels opened together expire apart."""


@dataclass(slots=True, eq=False)
class _Entry(Generic[T]):
    tunnel: T
    expires_at: float


class ExpiringQueue(Generic[T]):
    """Tunnels, oldest first, distinguished by identity."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._entries: OrderedDict[int, _Entry[T]] = OrderedDict()  # a gateway may close a thousand of them at once

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, tunnel: T, max_age_s: float, now: float) -> None:
        """Keep a tunnel until it is taken or has reached its maximum age, less the jitter."""
        life = max_age_s * self._dice(1.0 - AGE_JITTER, 1.0)
        self._entries[id(tunnel)] = _Entry(tunnel, now + life)

    def take(self) -> T | None:
        """Remove and return the oldest tunnel, which is the next that would be lost."""
        return self._entries.popitem(last=False)[1].tunnel if self._entries else None

    def remove(self, tunnel: T) -> bool:
        """Remove a tunnel that was closed, and return whether it was here."""
        return self._entries.pop(id(tunnel), None) is not None

    def expired(self, now: float) -> list[T]:
        """Remove and return the tunnels that have reached their maximum age."""
        over = [entry.tunnel for entry in self._entries.values() if entry.expires_at <= now]
        for tunnel in over:
            self.remove(tunnel)
        return over

    def beyond(self, depth: int) -> list[T]:
        """Remove and return the oldest tunnels until no more than ``depth`` are left."""
        return [self._entries.popitem(last=False)[1].tunnel for _ in range(len(self._entries) - depth)]

    def tunnels(self) -> list[T]:
        """Return all tunnels, oldest first."""
        return [entry.tunnel for entry in self._entries.values()]

    def next_expiry(self) -> float | None:
        """Return when the first tunnel expires, or None if there is none."""
        return min((entry.expires_at for entry in self._entries.values()), default=None)
