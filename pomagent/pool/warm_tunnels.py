"""The warm tunnels of one route, watched until a client leases them or they are closed with a reason."""

from __future__ import annotations

from collections.abc import Iterable

from pomagent.gateway.tunnel import Tunnel
from pomagent.log import events
from pomagent.pool.context import PoolContext
from pomagent.pool.expiring_queue import ExpiringQueue
from pomagent.pool.greeting import GREETING_BYTES
from pomagent.pool.refill_pacing import RefillPacing
from pomagent.pool.wakeup import WakeupTimer
from pomagent.pool.warm_policy import WarmTarget
from pomagent.protocol.lifecycle import Reason, State


class WarmTunnels:
    """Tunnels that are ready, and TLS connections that wait for their CONNECT."""

    def __init__(self, context: PoolContext, pacing: RefillPacing, wakeup: WakeupTimer) -> None:
        self._route = context.route
        self._history = context.history
        self._gateway_health = context.gateway_health
        self._log = context.log
        self._clock = context.clock
        self._pacing = pacing
        self._wakeup = wakeup
        self._ready: ExpiringQueue[Tunnel] = ExpiringQueue(context.dice)
        self._secured: ExpiringQueue[Tunnel] = ExpiringQueue(context.dice)

    def __len__(self) -> int:
        return len(self._ready) + len(self._secured)

    @property
    def ready_count(self) -> int:
        """Tunnels with an accepted CONNECT."""
        return len(self._ready)

    @property
    def secured_count(self) -> int:
        """TLS connections without a CONNECT."""
        return len(self._secured)

    def count_at_level(self, target: WarmTarget) -> int:
        """Return how many are at the level that the route keeps."""
        return self.ready_count if target.level == "tunnel" else self.secured_count

    def put(self, tunnel: Tunnel, max_age_s: float) -> None:
        """Keep a tunnel warm and watch it. Does not block."""
        (self._ready if tunnel.is_ready else self._secured).put(tunnel, max_age_s, self._clock())
        tunnel.keep_warm(self._lost, self.learn_from)

    def take_ready(self) -> Tunnel | None:
        """Remove and return the oldest tunnel that is still alive."""
        return self._take(self._ready)

    def take_secured(self) -> Tunnel | None:
        """Remove and return the oldest TLS connection that is still alive."""
        return self._take(self._secured)

    def trim(self, target: WarmTarget, now: float) -> None:
        """Close what is older than its maximum age, and what the route no longer keeps."""
        expired = self._ready.expired(now)
        if expired:
            self._history.early_closes.lived(max(tunnel.age_ms for tunnel in expired) / 1000)
        self._discard_all([*expired, *self._secured.expired(now)], Reason.EXPIRED)
        unwanted = [] if target.level == "tunnel" else self._ready.beyond(0)
        if target.max_count is not None:
            unwanted += [*self._ready.beyond(target.max_count), *self._secured.beyond(target.max_count)]
        self._discard_all(unwanted, Reason.UNWANTED)

    def discard_ready(self, reason: Reason) -> None:
        """Close every tunnel with an accepted CONNECT. TLS connections stay: they give access to nothing."""
        self._history.policy.stopped_listening()
        self._discard_all(self._ready.beyond(0), reason)

    def empty(self, reason: Reason) -> None:
        """Close everything, the tunnel that waits for a greeting included."""
        self._history.policy.stopped_listening()
        self._discard_all([*self._ready.beyond(0), *self._secured.beyond(0)], reason)

    def discard(self, tunnel: Tunnel, reason: Reason) -> None:
        """Close a tunnel that no client has used."""
        tunnel.close(reason)
        self._history.discards[reason.value] += 1
        self._log.debug(events.TUNNEL_CLOSED, reason=reason.value, age_ms=tunnel.age_ms, request_id=tunnel.request_id)

    def learn_from(self, tunnel: Tunnel) -> None:
        """Learn what the route's server is from what it has sent on a tunnel that no client has used yet.

        Called in the hub each time that a warm tunnel receives data. Does not block.
        """
        if self._history.note_greeting(bytes(tunnel.early[:GREETING_BYTES]), tunnel.accepted_s):
            now = self._clock()
            self.trim(self._history.policy.target(now), now)

    def next_expiry(self) -> float | None:
        """Return when the first tunnel reaches its maximum age, or None if there is none."""
        moments = (self._ready.next_expiry(), self._secured.next_expiry())
        return min((at for at in moments if at is not None), default=None)

    def _take(self, queue: ExpiringQueue[Tunnel]) -> Tunnel | None:
        while (tunnel := queue.take()) is not None:
            tunnel.look_again()
            if tunnel.state is not State.CLOSED:
                return tunnel
        return None

    def _discard_all(self, tunnels: Iterable[Tunnel], reason: Reason) -> None:
        for tunnel in tunnels:
            self.discard(tunnel, reason)

    def _lost(self, tunnel: Tunnel) -> None:
        """Account for a warm tunnel that the other side closed. Called in the hub."""
        self._ready.remove(tunnel)
        self._secured.remove(tunnel)
        now, age_s = self._clock(), tunnel.age_ms / 1000
        self._gateway_health.lost(self._route.name, age_s)
        self._history.outage.was_alive(now)
        early_closes = self._history.early_closes
        if tunnel.is_ready:
            self._history.policy.stopped_listening()
            early_closes.note(age_s, now)
        self._pacing.lost(age_s, now, (early_closes.due_at or 0.0) if early_closes.is_suspicious else 0.0)
        self._wakeup.ring()
        self.discard(tunnel, Reason.PEER_CLOSED)
