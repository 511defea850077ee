"""Keeps the tunnels of one route warm and leases them to sessions. What sessions and the agent call."""

from __future__ import annotations

from gevent import Timeout
from gevent.event import AsyncResult

from pomagent.errors import PoolClosed, PoolExhausted, TunnelError
from pomagent.gateway.tunnel import Tunnel
from pomagent.log import events
from pomagent.pool.context import PoolContext
from pomagent.pool.dialing import DialScheduler, Opener
from pomagent.pool.housekeeper import Housekeeper
from pomagent.pool.shared_reserve import Reserve
from pomagent.pool.state import PoolState
from pomagent.pool.status import PoolStatus
from pomagent.pool.warm_policy import PolicyReason, WarmTarget
from pomagent.protocol.lifecycle import Reason
from pomagent.runtime.deadline import Deadline


class Pool:
    """The warm tunnels of one route under one set of settings. Changed settings make a new pool."""

    def __init__(self, context: PoolContext, opener: Opener, reserve: Reserve | None = None) -> None:
        """``reserve`` serves the route while it is unused. It is None for a route that never decays."""
        self._route_name = context.route.name
        self._opener = opener
        self._history = context.history
        self._log = context.log
        self._clock = context.clock
        self._reserve = reserve if context.route.pool_min else None
        self._state = PoolState(context)
        self._scheduler = DialScheduler(context, self._state, opener)
        self._housekeeper = Housekeeper(context, self._state, self._scheduler, self._reserve)
        self.status = PoolStatus(context, self._state, self._reserve)
        context.history.wakeup = self._state.wakeup

    def __repr__(self) -> str:
        return f"<Pool {self._route_name}: {self.warm_count}/{self.target_count} warm, {self.waiting_count} waiting>"

    # --- what it has ------------------------------------------------------------------------------------------------

    @property
    def warm_count(self) -> int:
        """Warm tunnels and TLS connections."""
        return len(self._state.warm)

    @property
    def target_count(self) -> int:
        """How many should be warm now."""
        return self._state.target_count(self.warm_target, self._clock())

    @property
    def waiting_count(self) -> int:
        """Clients that wait for a tunnel."""
        return len(self._state.waiters)

    @property
    def warm_target(self) -> WarmTarget:
        """What is kept warm now, and why."""
        return self._history.policy.target(self._clock())

    @property
    def last_error(self) -> TunnelError | None:
        """The failure of the last dial, or the lack of a token; None after a success.

        Only an accepted CONNECT clears a failed CONNECT.
        """
        return self.status.last_error or self._opener.token_error

    # --- for sessions and the agent ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to keep tunnels warm. Does not block."""
        self._housekeeper.start()

    def lease(self, deadline: Deadline) -> Tunnel:
        """Return a tunnel that is ready, a warm one if there is one. Blocks.

        Raises PoolClosed, PoolExhausted when the deadline passes or too many clients wait, and the TunnelError of the
        dial that was to serve this client.
        """
        state, policy, now = self._state, self._history.policy, self._clock()
        if state.is_closed:
            raise PoolClosed(f"route {self._route_name} is closing")
        target = policy.target(now)
        policy.used(now)
        if target.reason is PolicyReason.DECAYED:
            self._take_from_reserve(target)
            target = policy.target(now)
        self._note_lease(target, now)
        tunnel = state.warm.take_ready() if target.may_be_leased else None
        if tunnel is not None:
            self._history.leases["tunnel"] += 1
            self._history.outage.was_alive(now)
        else:
            tunnel = self._wait_for_tunnel(deadline)
            self._history.leases["tls" if tunnel.was_warm else "cold"] += 1
        tunnel.lease()
        return tunnel

    def retry_now(self) -> None:
        """Forget the delays after failures. Does not block."""
        self._state.pacing.forgive()
        self._scheduler.reset()
        self._scheduler.dial_for_clients()
        self._state.wakeup.ring()

    def distrust(self, error: TunnelError) -> None:
        """Close the tunnels of a rejected token, and report this error as if a dial had met it. Does not block."""
        self._scheduler.distrust(error)

    def trust(self) -> None:
        """End a rejection of the token, because the gateway accepts it again. Does not block."""
        self._scheduler.trust()

    def drain(self, reason: Reason) -> None:
        """Close what is warm and refill no more. Accepted clients still get tunnels, each by its own dial."""
        self._state.is_draining = True
        if self._reserve is not None:
            self._reserve.leave(self._state)
        self._state.warm.empty(reason)

    def close(self, reason: Reason) -> None:
        """Drain, and refuse every client that waits or comes. Leased tunnels belong to their sessions."""
        self._state.is_closed = True
        self.drain(reason)
        self._housekeeper.close()
        self._scheduler.close()
        if reason is Reason.STALE:  # the next pool begins without the failures. At a stop, nothing has healed
            self._scheduler.reset()
        while waiter := self._state.waiters.next():
            waiter.set_exception(PoolClosed(f"route {self._route_name} is closing"))

    # --- as the reserve that unused routes share --------------------------------------------------------------------

    def keep_at_least(self, count: int) -> None:
        """Keep at least this many warm from now on. Does not block."""
        self._state.demand.minimum = count
        self._state.wakeup.ring()

    def take_secured(self) -> Tunnel | None:
        """Remove and return the oldest TLS connection that is alive, or None if there is none. Does not block."""
        self._note_lease(self.warm_target, self._clock())
        return self._state.warm.take_secured()

    # --- a lease ----------------------------------------------------------------------------------------------------

    def _note_lease(self, target: WarmTarget, now: float) -> None:
        """Learn from a lease how many tunnels to keep, and plan the refill."""
        demand = self._state.demand
        demand.note_lease(now)
        refill_from = self._state.pacing.leased(now, demand.refill_delay_s)
        if target.level != "off":
            self._state.wakeup.ring_by(refill_from)

    def _take_from_reserve(self, target: WarmTarget) -> None:
        """Move one connection of the reserve to the route, which is in use again."""
        if self._reserve is None or self._state.is_draining:
            return
        connection = self._reserve.take()
        self._reserve.leave(self._state)
        if connection is not None:
            self._state.warm.put(connection, target.max_age_s)

    def _wait_for_tunnel(self, deadline: Deadline) -> Tunnel:
        """Return the tunnel that a dial brings. Blocks."""
        waiter = self._join_queue()
        try:
            with Timeout(deadline.remaining_s, False):
                waiter.wait()
        except BaseException:  # this client was killed while it waited
            self._state.waiters.leave(waiter)
            if waiter.successful():
                self._scheduler.place(waiter.get_nowait(), is_refill=False)
            raise
        if not waiter.ready():
            self._state.waiters.leave(waiter)
            raise self._starved(deadline)
        if waiter.exception is not None:
            self._history.refusals["failed"] += 1
            raise waiter.exception.with_traceback(None)  # several clients may share it
        tunnel: Tunnel = waiter.get_nowait()
        return tunnel

    def _join_queue(self) -> AsyncResult:
        """Queue a client and begin the dial that it needs."""
        state = self._state
        if not state.waiters.has_room:
            self._history.refusals["full"] += 1
            raise PoolExhausted(f"route {self._route_name}: {self.waiting_count} clients already wait for a tunnel")
        waiter = AsyncResult()
        state.waiters.join(waiter)
        self._scheduler.dial_for_clients()
        if state.snapshot(
            self._clock()
        ).shares_dials:  # else the client's dial has begun, and the housekeeper has nothing to do for it
            state.wakeup.ring()
        return waiter

    def _starved(self, deadline: Deadline) -> PoolExhausted:
        self._history.refusals["starved"] += 1
        self._log.warning(events.POOL_STARVED, warm=self.warm_count, waiting=self.waiting_count)
        return PoolExhausted(
            f"route {self._route_name}: no tunnel was ready within {deadline.budget_s:g} s"
            + (f"; last failure: {self.last_error}" if self.last_error else "")
        )
