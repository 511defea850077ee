"""The warm tunnels of one route, watched until somebody takes them or they are closed with a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pomagent.gateway.tunnel import Tunnel
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.pool.backoff import Dice
from pomagent.pool.expiring_queue import ExpiringQueue
from pomagent.pool.history import RouteHistory
from pomagent.pool.warm_policy import WarmTarget
from pomagent.protocol.lifecycle import Reason, State
from pomagent.runtime.deadline import Clock

Notice = Callable[[Tunnel], None]


class WarmTunnels:
    """Whole tunnels that are ready, and TLS connections that wait for their CONNECT."""

    def __init__(
        self, memory: RouteHistory, log: Logger, clock: Clock, dice: Dice, *, on_end: Notice, on_early: Notice
    ) -> None:
        """``on_end`` and ``on_early`` are called in the hub: it ended by itself, or the destination said something."""
        self._memory = memory
        self._log = log
        self._clock = clock
        self._on_end = on_end
        self._on_early = on_early
        self._ready: ExpiringQueue[Tunnel] = ExpiringQueue(dice)
        self._secured: ExpiringQueue[Tunnel] = ExpiringQueue(dice)

    def __len__(self) -> int:
        return len(self._ready) + len(self._secured)

    @property
    def ready(self) -> int:
        """Whole tunnels."""
        return len(self._ready)

    @property
    def secured(self) -> int:
        """TLS connections without a CONNECT."""
        return len(self._secured)

    def count(self, keeping: WarmTarget) -> int:
        """How many there are of what the route keeps."""
        return self.ready if keeping.level == "tunnel" else self.secured

    def put(self, tunnel: Tunnel, max_age_s: float) -> None:
        (self._ready if tunnel.is_ready else self._secured).put(tunnel, max_age_s, self._clock())
        tunnel.keep_warm(self._ended, self._on_early)

    def take_ready(self) -> Tunnel | None:
        """The oldest whole tunnel that is still alive at this moment."""
        return self._take(self._ready)

    def take_secured(self) -> Tunnel | None:
        """The oldest TLS connection that is still alive at this moment."""
        return self._take(self._secured)

    def trim(self, keeping: WarmTarget, now: float) -> None:
        """Close what is over its age, and what the route does not keep any more."""
        expired = self._ready.expired(now)
        if expired:
            self._memory.early_ends.lived(max(tunnel.age_ms for tunnel in expired) / 1000)
        self._discard_all([*expired, *self._secured.expired(now)], Reason.EXPIRED)
        unwanted = [] if keeping.level == "tunnel" else self._ready.beyond(0)
        if keeping.most is not None:
            unwanted += [*self._ready.beyond(keeping.most), *self._secured.beyond(keeping.most)]
        self._discard_all(unwanted, Reason.UNWANTED)

    def empty(self, reason: Reason) -> None:
        """Close everything; nobody listens for a greeting any more."""
        self._memory.warmth.stopped_listening()
        self._discard_all([*self._ready.beyond(0), *self._secured.beyond(0)], reason)

    def discard(self, tunnel: Tunnel, reason: Reason) -> None:
        """Close a tunnel that has served nobody."""
        tunnel.close(reason)
        self._memory.discards[reason.value] += 1
        self._log.debug(events.TUNNEL_CLOSED, reason=reason.value, age_ms=tunnel.age_ms, request_id=tunnel.request_id)

    def next_expiry(self) -> float | None:
        moments = (self._ready.next_expiry(), self._secured.next_expiry())
        return min((at for at in moments if at is not None), default=None)

    def _take(self, stock: ExpiringQueue[Tunnel]) -> Tunnel | None:
        while (tunnel := stock.take()) is not None:
            tunnel.look_again()
            if tunnel.state is not State.CLOSED:
                return tunnel
        return None

    def _discard_all(self, tunnels: Iterable[Tunnel], reason: Reason) -> None:
        for tunnel in tunnels:
            self.discard(tunnel, reason)

    def _ended(self, tunnel: Tunnel) -> None:
        self._ready.remove(tunnel)
        self._secured.remove(tunnel)
        self._on_end(tunnel)
        self.discard(tunnel, Reason.PEER_CLOSED)
