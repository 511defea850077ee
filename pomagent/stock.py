"""What a pool holds and owes, and what it should do next: decisions only, no I/O, no clock of its own."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from pomagent.backoff import Dice

T = TypeVar("T")
W = TypeVar("W")

REFILL_DELAY_S = 0.02
"""After a take, so that the refill's handshake does not compete with the client's first byte (2.1 → 1.4 ms)."""
AGE_JITTER = 0.2
"""Tunnels that were opened together must not end together."""
MAX_DIALS_PER_ROUTE = 16
"""At a time; one firewalled database holds each for 10 s at the gateway and must not take all its places."""
MAX_REFILLS_PER_ROUTE = MAX_DIALS_PER_ROUTE // 2
"""The other places are the clients': a refill that hangs does not make one wait for its own dial."""
MAX_WAITING = 1024
"""Clients of one route that wait for a tunnel; beyond, they are refused at once."""


@dataclass(frozen=True, slots=True)
class StockPolicy:
    """How many warm tunnels, and for how long."""

    minimum: int
    maximum: int
    max_age_s: float


@dataclass(slots=True, eq=False)
class _Warm(Generic[T]):
    tunnel: T
    expires_at: float


class Stock(Generic[T, W]):
    """Warm tunnels, waiting clients and dials under way of one route."""

    def __init__(self, policy: StockPolicy, dice: Dice) -> None:
        self.policy = policy
        self._dice = dice
        self._warm: deque[_Warm[T]] = deque()
        self._waiting: deque[W] = deque()
        self._takes: deque[float] = deque(maxlen=max(2, policy.maximum * 2))
        self.dials_by_clients = 0
        """Under way because a client waits."""
        self.dials_by_stock = 0
        """Under way to fill up."""
        self.dial_s = 0.0
        """How long a dial takes lately (a moving average)."""

    def __len__(self) -> int:
        return len(self._warm)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def may_wait(self) -> bool:
        return len(self._waiting) < MAX_WAITING

    @property
    def has_room(self) -> bool:
        """False when it is full, which the dials of clients that left meanwhile can make it."""
        return len(self._warm) < max(self.policy.minimum, self.policy.maximum)

    def put(self, tunnel: T, now: float) -> None:
        """Keep a tunnel until somebody takes it or its age, less up to a fifth, is over."""
        life = self.policy.max_age_s * self._dice(1.0 - AGE_JITTER, 1.0)
        self._warm.append(_Warm(tunnel, now + life))

    def take(self) -> T | None:
        """The oldest tunnel: each is used once, and the oldest is the next to be lost."""
        return self._warm.popleft().tunnel if self._warm else None

    def note_take(self, now: float) -> None:
        """Remember that a client asked, whether or not there was something to take."""
        self._takes.append(now)

    def remove(self, tunnel: T) -> bool:
        """Forget a tunnel that ended; False if it was not here."""
        for warm in self._warm:
            if warm.tunnel is tunnel:
                self._warm.remove(warm)
                return True
        return False

    def expired(self, now: float) -> list[T]:
        """Remove and return what is over its age."""
        over = [warm for warm in self._warm if warm.expires_at <= now]
        for warm in over:
            self._warm.remove(warm)
        return [warm.tunnel for warm in over]

    def empty(self) -> list[T]:
        """Remove and return everything that is warm."""
        tunnels = [warm.tunnel for warm in self._warm]
        self._warm.clear()
        return tunnels

    def next_expiry(self) -> float | None:
        return min((warm.expires_at for warm in self._warm), default=None)

    def wait(self, waiter: W) -> None:
        self._waiting.append(waiter)

    def leave(self, waiter: W) -> None:
        """Forget a waiter that has left; no harm if it was served meanwhile."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def next_waiter(self) -> W | None:
        """Remove and return whoever has waited longest."""
        return self._waiting.popleft() if self._waiting else None

    def next_to_fail(self) -> W | None:
        """Remove and return whose dial it was that failed: the longest waiting, unless other dials suffice for all.

        To be asked while the failed dial still counts.
        """
        return self.next_waiter() if self.dials_by_clients <= len(self._waiting) else None

    def dial_took(self, seconds: float) -> None:
        self.dial_s = seconds if not self.dial_s else 0.8 * self.dial_s + 0.2 * seconds

    def target(self, now: float) -> int:
        """How many to hold: about twice what is taken until a refill is there, within the policy's bounds."""
        lately = sum(1 for at in self._takes if at > now - self.dial_s - REFILL_DELAY_S)
        return max(self.policy.minimum, min(self.policy.maximum, 2 * lately))

    def dials_wanted_by_clients(self) -> int:
        """How many dials to start for those who wait: one each, within the cap."""
        return max(0, min(len(self._waiting), MAX_DIALS_PER_ROUTE - self.dials_by_stock) - self.dials_by_clients)

    def dials_wanted_by_stock(self, now: float) -> int:
        """How many dials to start to reach the target, counting what clients ordered and no longer need."""
        left_over = max(0, self.dials_by_clients - len(self._waiting))
        missing = self.target(now) - len(self._warm) - self.dials_by_stock - left_over
        places = min(MAX_REFILLS_PER_ROUTE, MAX_DIALS_PER_ROUTE - self.dials_by_clients) - self.dials_by_stock
        return max(0, min(missing, places))
