"""Decides what a pool does next. Each function takes a snapshot and returns what to do, and changes nothing. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pomagent.pool.dial_budget import NO_DIALS, DialBudget
from pomagent.pool.warm_policy import PolicyReason, WarmTarget


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """One pool at one moment."""

    now: float
    target: WarmTarget
    """What the route keeps warm."""
    target_count: int
    """How many tunnels should be warm. This is 0 while the pool drains."""
    min_count: int
    """The route's ``pool_min``, or what a shared reserve asks for."""
    max_count: int
    """The route's ``pool_max``."""
    warm_count: int
    """Warm tunnels and TLS connections."""
    level_count: int
    """Those of them that are at the level of the target."""
    waiting_count: int = 0
    """Clients that wait for a tunnel."""
    dials: DialBudget = NO_DIALS
    has_uncovered_client: bool = False
    """Whether a client waits that no dial under way decides for while dials are shared."""
    is_breaker_open: bool = False
    hold_until: float = 0.0
    """Until when clients are held although dials fail."""
    shared_dial_from: float = 0.0
    """When the next dial that clients share may begin."""
    refill_from: float = 0.0
    """When leases, losses and failures permit the next refill."""
    fails_after_tls: bool = False
    """Whether the last dial failed once TLS had been established: at the token, or at the CONNECT."""
    is_draining: bool = False
    is_denied: bool = False
    """Whether the gateway's policy denies the route, so that no tunnel is kept warm."""

    @property
    def is_holding(self) -> bool:
        """Whether a failure that may pass refuses no client."""
        return self.now < self.hold_until

    @property
    def shares_dials(self) -> bool:
        """Whether all clients share one dial a second: dials keep failing."""
        return self.is_breaker_open or self.is_holding


@dataclass(frozen=True, slots=True)
class Refill:
    """What to dial for the pool now, or when to decide again."""

    count: int = 0
    not_before: float | None = None
    """When the refills that are needed may begin, or None if none is needed or they may begin now."""


class Placement(Enum):
    """Where a new tunnel goes."""

    CLIENT = "client"
    """To the client that has waited longest."""
    WARM = "warm"
    """To the warm tunnels."""
    UNWANTED = "unwanted"
    """Closed: the pool is full, or does not keep it."""
    ABORTED = "aborted"
    """Closed: the client that it was dialled for has left."""


class Concerned(Enum):
    """Which waiting clients a failed dial refuses."""

    NONE = "none"
    OLDEST = "oldest"
    """The client that has waited longest, if it came before the dial began."""
    ALL = "all"
    """All clients that came before the dial began."""


NO_REFILL = Refill()


def shared_dial_at(pool: PoolSnapshot) -> float | None:
    """Return when waiting clients get their shared dial.

    None if each client gets its own dial, if a dial under way decides for every client, or until a dial ends and makes
    room.
    """
    is_needed = pool.shares_dials and pool.has_uncovered_client
    return pool.shared_dial_from if is_needed and pool.dials.has_room else None


def client_dials(pool: PoolSnapshot) -> int:
    """Return how many dials to begin for waiting clients: one each, or one for all while dials are shared."""
    if not pool.shares_dials:
        return pool.dials.needed_by_clients(pool.waiting_count)
    at = shared_dial_at(pool)
    return int(at is not None and pool.now >= at)


def refill(pool: PoolSnapshot) -> Refill:
    """Return how many tunnels to dial for the pool now, or when that will be permitted.

    While the breaker is open, one refill finds out whether dials work again. Failed CONNECTs do not hold back a route
    that keeps TLS connections: a refill sends no CONNECT.
    """
    missing = pool.target_count - pool.level_count
    count = pool.dials.needed_by_refills(missing, pool.waiting_count) if missing > 0 else 0
    sends_no_connect = pool.target.level == "tls" and pool.fails_after_tls
    if pool.is_breaker_open and not sends_no_connect:
        count = min(count, 1 - pool.dials.refill_count)
    if count <= 0:
        return NO_REFILL
    return Refill(not_before=pool.refill_from) if pool.now < pool.refill_from else Refill(count)


def is_below_minimum(pool: PoolSnapshot) -> bool:
    """Return whether fewer tunnels are warm than the route's minimum, or than the target if that is lower."""
    return pool.level_count < min(pool.target_count, pool.min_count)


def placement(pool: PoolSnapshot, *, is_ready: bool, is_refill: bool) -> Placement:
    """Return where a new tunnel goes: to a client, to the warm tunnels, or nowhere.

    A refill that is to find out whether the server speaks first stays warm even if a client waits. A tunnel that the
    policy does not keep could harm the destination while it idles. A route that is denied keeps no tunnel that was
    accepted just before.
    """
    has_room = pool.warm_count < pool.target.limit(pool.max_count)
    is_probe = is_refill and pool.target.reason is PolicyReason.PROBING and has_room
    if is_ready and pool.waiting_count and not is_probe:
        return Placement.CLIENT
    if pool.is_draining or (is_ready and pool.is_denied) or not pool.target.keeps(is_ready=is_ready):
        return Placement.UNWANTED if is_refill else Placement.ABORTED
    return Placement.WARM if has_room else Placement.UNWANTED


def clients_concerned(pool: PoolSnapshot, *, may_pass: bool) -> Concerned:
    """Return which waiting clients the failure of a client's dial refuses. ``pool.dials`` still counts that dial.

    ``may_pass`` is false for a failure that waiting cannot mend, such as a 403 or an untrusted certificate.
    """
    if may_pass and pool.is_holding:
        return Concerned.NONE
    if pool.is_breaker_open:
        return Concerned.ALL
    return Concerned.NONE if pool.dials.suffices_without_one(pool.waiting_count) else Concerned.OLDEST
