"""Reports what one pool has, which dials are under way, and what failures have led to. It changes nothing."""

from __future__ import annotations

from pomagent.errors import TunnelError
from pomagent.gateway.failure_log import AFTER_TLS
from pomagent.pool.breaker import BreakerState
from pomagent.pool.context import PoolContext
from pomagent.pool.shared_reserve import Reserve
from pomagent.pool.state import PoolState
from pomagent.pool.warm_policy import PolicyReason

SHORT_FOR_S = 1.0
"""A pool below its minimum for longer than this, and for longer than two dials take, is short of tunnels."""


class PoolStatus:
    """The pool as the status page, the metrics and the route's state show it."""

    def __init__(self, context: PoolContext, state: PoolState, reserve: Reserve | None) -> None:
        self._history = context.history
        self._clock = context.clock
        self._state = state
        self._reserve = reserve

    @property
    def warm_by_level(self) -> dict[str, int]:
        """Warm tunnels, and TLS connections without a CONNECT."""
        return {"tunnel": self._state.warm.ready_count, "tls": self._state.warm.secured_count}

    @property
    def dials(self) -> dict[str, int]:
        """Dials under way for clients, and for refills."""
        return {"clients": self._state.dials.client_count, "stock": self._state.dials.refill_count}

    @property
    def is_warm(self) -> bool:
        """Whether a warm tunnel or TLS connection awaits the next client."""
        reserve = self._reserve_in_use
        return len(self._state.warm) > 0 or (reserve is not None and reserve.warm_count > 0)

    @property
    def still_serves(self) -> bool:
        """Whether a warm tunnel or TLS connection may serve the next client although the last dial failed."""
        error = self.last_error
        return self._state.warm.ready_count > 0 or (self.is_warm and (error is None or error.phase not in AFTER_TLS))

    @property
    def is_short(self) -> bool:
        """Whether the pool has been below its minimum for longer than dials take."""
        late_s = max(SHORT_FOR_S, 2 * self._state.demand.dial_s)
        return self._state.pacing.is_short_for(late_s, self._clock())

    @property
    def breaker(self) -> BreakerState:
        return self._state.breaker.state(self._clock())

    @property
    def retry_in_s(self) -> float:
        """Seconds until the pool dials again after failures. Clients do not wait for this."""
        return max(0.0, self._state.breaker.retry_at - self._clock())

    @property
    def failure_count(self) -> int:
        """Dials that failed since the last success."""
        return self._state.breaker.failure_count

    @property
    def last_error(self) -> TunnelError | None:
        """The failure of the last dial, None after a success. Only an accepted CONNECT clears a failed CONNECT."""
        own = self._state.last_error
        if own is not None or self._reserve is None or self._reserve.last_error is None:
            return own
        return self._reserve.last_error if self._reserve_in_use else None

    @property
    def has_succeeded(self) -> bool:
        """Whether the gateway has ever accepted a CONNECT."""
        return self._state.has_succeeded

    @property
    def _reserve_in_use(self) -> Reserve | None:
        has_decayed = self._history.policy.target(self._clock()).reason is PolicyReason.DECAYED
        return self._reserve if has_decayed else None
