"""What a pool holds warm: the oldest first, each until its age is over. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from pomagent.pool.backoff import Dice

T = TypeVar("T")

AGE_JITTER = 0.2
"""Tunnels that were opened together must not end together."""


@dataclass(slots=True, eq=False)
class _Warm(Generic[T]):
    tunnel: T
    expires_at: float


class ExpiringQueue(Generic[T]):
    """Tunnels in the order of their coming; told apart by identity."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._warm: OrderedDict[int, _Warm[T]] = OrderedDict()  # a gateway may take a thousand of them away at once

    def __len__(self) -> int:
        return len(self._warm)

    def put(self, tunnel: T, max_age_s: float, now: float) -> None:
        """Keep a tunnel until somebody takes it or its age, less up to a fifth, is over."""
        life = max_age_s * self._dice(1.0 - AGE_JITTER, 1.0)
        self._warm[id(tunnel)] = _Warm(tunnel, now + life)

    def take(self) -> T | None:
        """The oldest tunnel: each is used once, and the oldest is the next to be lost."""
        return self._warm.popitem(last=False)[1].tunnel if self._warm else None

    def remove(self, tunnel: T) -> bool:
        """Forget a tunnel that ended; False if it was not here."""
        return self._warm.pop(id(tunnel), None) is not None

    def expired(self, now: float) -> list[T]:
        """Remove and return what is over its age."""
        over = [warm.tunnel for warm in self._warm.values() if warm.expires_at <= now]
        for tunnel in over:
            self.remove(tunnel)
        return over

    def beyond(self, depth: int) -> list[T]:
        """Remove and return the oldest, until no more than ``depth`` are left."""
        return [self._warm.popitem(last=False)[1].tunnel for _ in range(len(self._warm) - depth)]

    def next_expiry(self) -> float | None:
        return min((warm.expires_at for warm in self._warm.values()), default=None)
