"""What one pool has and does: the one home of its state, and the snapshot that its decisions read."""

from __future__ import annotations

import math

from gevent.event import AsyncResult

from pomagent.errors import TunnelError
from pomagent.gateway.failure_log import AFTER_TLS
from pomagent.pool.breaker import Breaker
from pomagent.pool.context import PoolContext
from pomagent.pool.decisions import PoolSnapshot
from pomagent.pool.demand import Demand
from pomagent.pool.dial_budget import DialBudget
from pomagent.pool.refill_pacing import RefillPacing
from pomagent.pool.waiters import Waiters
from pomagent.pool.wakeup import WakeupTimer
from pomagent.pool.warm_policy import WarmTarget
from pomagent.pool.warm_tunnels import WarmTunnels


class PoolState:
    """The tunnels, clients, dials and failures of one pool."""

    def __init__(self, context: PoolContext) -> None:
        route = context.route
        self._hold_s = route.hold_s
        self._history = context.history
        self.wakeup = WakeupTimer(context.clock)
        """Wakes the housekeeper: whatever changes what it decides rings it."""
        self.pacing = RefillPacing(context.dice)
        self.warm = WarmTunnels(context, self.pacing, self.wakeup)
        self.demand = Demand(route.pool_min, route.pool_max)
        self.waiters: Waiters[AsyncResult] = Waiters()
        self.dials = DialBudget()
        self.breaker = Breaker(context.dice)
        self.covered_mark = 0
        """The outcome of a dial under way decides for every client that came before this mark."""
        self.last_error: TunnelError | None = None
        """The failure of the last dial, None after a success. Only an accepted CONNECT clears a failed CONNECT."""
        self.denied_at = -math.inf
        """When the gateway's policy last denied the route."""
        self.is_denied = False
        """Whether the policy denies the route: no CONNECT sent since then has been accepted."""
        self.has_succeeded = False
        """Whether the gateway has ever accepted a CONNECT."""
        self.is_draining = False
        self.is_closed = False

    def target_count(self, target: WarmTarget, now: float) -> int:
        """Return how many tunnels should be warm: what clients are about to need, within every limit.

        A server that has closed idle tunnels early bounds how many are risked with it.
        """
        if target.level == "off":
            return 0
        count = target.limit(self.demand.target(now))
        risked = self._history.early_closes.max_count(now) if target.level == "tunnel" else None
        return count if risked is None else min(count, risked)

    def snapshot(self, now: float) -> PoolSnapshot:
        """Return the facts that decisions are made from."""
        target, breaker, waiters = self._history.policy.target(now), self.breaker, self.waiters
        waiting = len(waiters)
        are_all_uncovered = self.dials.client_count == 0 and waiting > 0
        return PoolSnapshot(
            now=now,
            target=target,
            target_count=0 if self.is_draining else self.target_count(target, now),
            min_count=self.demand.minimum,
            max_count=self.demand.maximum,
            warm_count=len(self.warm),
            level_count=self.warm.count_at_level(target),
            waiting_count=waiting,
            dials=self.dials,
            has_uncovered_client=are_all_uncovered or waiters.has_since(self.covered_mark),
            is_breaker_open=breaker.is_open,
            hold_until=self._history.outage.hold_until(self._hold_s),
            shared_dial_from=breaker.shared_dial_from,
            refill_from=max(self.pacing.refill_from, breaker.retry_at),
            fails_after_tls=self.last_error is not None and self.last_error.phase in AFTER_TLS,
            is_draining=self.is_draining,
            is_denied=self.is_denied,
        )
