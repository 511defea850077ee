"""How one pool stands: what it has, what is under way, what failures have come to. It changes nothing."""

from __future__ import annotations

from pomagent.errors import TunnelError
from pomagent.gateway.failure_log import AFTER_TLS
from pomagent.pool.breaker import BreakerState
from pomagent.pool.dialing import DialScheduler
from pomagent.pool.history import RouteHistory
from pomagent.pool.housekeeper import Housekeeper
from pomagent.pool.shared_reserve import Reserve
from pomagent.pool.warm_policy import PolicyReason
from pomagent.pool.warm_tunnels import WarmTunnels
from pomagent.runtime.deadline import Clock


class PoolStatus:
    """For the status, the metrics and the state of the route."""

    def __init__(
        self,
        shelf: WarmTunnels,
        supplier: DialScheduler,
        keeper: Housekeeper,
        memory: RouteHistory,
        reserve: Reserve | None,
        clock: Clock,
    ) -> None:
        self._shelf = shelf
        self._supplier = supplier
        self._keeper = keeper
        self._memory = memory
        self._reserve = reserve
        self._clock = clock

    @property
    def stock(self) -> dict[str, int]:
        """What is warm: whole tunnels, and TLS connections without a CONNECT."""
        return {"tunnel": self._shelf.ready, "tls": self._shelf.secured}

    @property
    def dialling(self) -> dict[str, int]:
        """Dials under way, by whom they are for."""
        return {"clients": self._supplier.dials.by_clients, "stock": self._supplier.dials.by_stock}

    @property
    def is_warm(self) -> bool:
        """Whether the next client finds a tunnel, or a connection."""
        reserve = self._reserve_in_use
        return len(self._shelf) > 0 or (reserve is not None and reserve.warm_count > 0)

    @property
    def still_serves(self) -> bool:
        """Whether what is warm may serve the next client although the last dial has failed."""
        error = self.last_error
        return self._shelf.ready > 0 or (self.is_warm and (error is None or error.phase not in AFTER_TLS))

    @property
    def is_short(self) -> bool:
        """Whether less is warm than there should be at least, for longer than a dial takes."""
        return self._keeper.is_short(self._clock())

    @property
    def breaker(self) -> BreakerState:
        return self._supplier.breaker.state(self._clock())

    @property
    def retry_in_s(self) -> float:
        """How long the pool waits yet after failures; clients do not."""
        return max(0.0, self._supplier.breaker.retry_at - self._clock())

    @property
    def failures(self) -> int:
        """Dials that failed since the last that worked."""
        return self._supplier.breaker.failures

    @property
    def last_error(self) -> TunnelError | None:
        """Of the last dial, None after one that succeeded: of a CONNECT, only after one was accepted."""
        own = self._supplier.last_error
        if own is not None or self._reserve is None or self._reserve.last_error is None:
            return own
        return self._reserve.last_error if self._reserve_in_use else None

    @property
    def has_succeeded(self) -> bool:
        """Whether a CONNECT has ever been accepted."""
        return self._supplier.has_succeeded

    @property
    def _reserve_in_use(self) -> Reserve | None:
        has_decayed = self._memory.warmth.keeping(self._clock()).why is PolicyReason.DECAYED
        return self._reserve if has_decayed else None
