"""Keeps the tunnels of one route warm: lease, refill, retire. It acts; most modules beside it decide."""

from __future__ import annotations

import random
import time

from gevent import Timeout
from gevent.event import AsyncResult

from pomagent.errors import PoolClosed, PoolExhausted, TunnelError
from pomagent.gateway.failure_log import AFTER_TLS
from pomagent.gateway.health import GatewayHealth
from pomagent.gateway.tunnel import Tunnel
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.pool.backoff import Dice
from pomagent.pool.demand import Demand
from pomagent.pool.dialing import DialScheduler, Opener
from pomagent.pool.greeting import GREETING_BYTES
from pomagent.pool.history import RouteHistory
from pomagent.pool.housekeeper import Housekeeper
from pomagent.pool.shared_reserve import Reserve
from pomagent.pool.status import PoolStatus
from pomagent.pool.wakeup import WakeupTimer
from pomagent.pool.warm_policy import PolicyReason, WarmTarget
from pomagent.pool.warm_tunnels import WarmTunnels
from pomagent.protocol.lifecycle import Reason
from pomagent.runtime.deadline import Clock, Deadline
from pomagent.runtime.greenlets import GreenletReuse
from pomagent.settings import Route


class Pool:
    """The warm tunnels of one route under one set of settings; a change of those makes a new pool."""

    def __init__(
        self, route: Route, opener: Opener, memory: RouteHistory, gateway: GatewayHealth, log: Logger,
        greenlets: GreenletReuse, reserve: Reserve | None = None, *, clock: Clock = time.monotonic,
        dice: Dice = random.uniform,
    ) -> None:  # fmt: skip
        """``greenlets`` dial; ``reserve``: what an unused route falls back on, None if it never decays."""
        self._route = route
        self._memory = memory
        self._gateway = gateway
        self._reserve = reserve if route.pool_min else None
        self._log = log
        self._clock = clock
        self._demand = Demand(route.pool_min, route.pool_max)
        self._shelf = WarmTunnels(memory, log, clock, dice, on_end=self._ended, on_early=self._heard)
        alarm = WakeupTimer(clock)
        self._supplier = DialScheduler(
            route.name, opener, self._shelf, self._demand, memory, gateway, log, clock, dice, greenlets,
            supply=self._supply, on_change=alarm.ring,
        )  # fmt: skip
        self._keeper = Housekeeper(
            route, memory, gateway, self._shelf, self._supplier, self._demand, log, clock, dice, alarm
        )
        self._keeper.on_decay = self._decay
        self.status = PoolStatus(self._shelf, self._supplier, self._keeper, memory, self._reserve, clock)
        self._is_draining = False
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Pool {self._route.name}: {self.warm_count}/{self.target} warm, {self.waiting} waiting>"

    # --- what it is doing -------------------------------------------------------------------------------------------

    @property
    def warm_count(self) -> int:
        return len(self._shelf)

    @property
    def target(self) -> int:
        """How many should be warm now."""
        return self._keeper.target(self.keeping, self._clock())

    @property
    def waiting(self) -> int:
        """How many clients wait for a tunnel."""
        return len(self._supplier.waiters)

    @property
    def keeping(self) -> WarmTarget:
        """What is kept warm now, and why."""
        return self._memory.warmth.keeping(self._clock())

    @property
    def last_error(self) -> TunnelError | None:
        """Of the last dial, None after one that succeeded: of a CONNECT, only after one was accepted."""
        return self.status.last_error

    # --- what others ask of it --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to keep tunnels warm."""
        self._keeper.start()

    def lease(self, deadline: Deadline) -> Tunnel:
        """A tunnel that is ready, warm if there is one. Blocks.

        Raises PoolClosed, PoolExhausted when the budget is over or too many wait, and the TunnelError of the dial
        that was to serve this client.
        """
        if self._is_closed:
            raise PoolClosed(f"route {self._route.name} is closing")
        now, warmth = self._clock(), self._memory.warmth
        keeping = warmth.keeping(now)
        warmth.used(now)
        if keeping.why is PolicyReason.DECAYED:
            self._wake_up(keeping)
            keeping = warmth.keeping(now)
        self._note_take(keeping, now)
        tunnel = self._shelf.take_ready() if keeping.may_be_leased else None
        if tunnel is not None:
            self._memory.takes["tunnel"] += 1
        else:
            tunnel = self._wait_for_one(deadline)
            self._memory.takes["tls" if tunnel.was_warm else "cold"] += 1
        tunnel.lease()
        return tunnel

    def _note_take(self, keeping: WarmTarget, now: float) -> None:
        """Learn from it what to keep. Does not block."""
        self._demand.note_take(now)
        self._keeper.taken(keeping, now)

    def heard(self, first: bytes, after_s: float) -> None:
        """The server spoke first, so long after it had accepted a tunnel. Does not block."""
        if self._memory.warmth.heard(first, after_s):
            self._keeper.tell_level(events.ROUTE_CLASSIFIED)
            self._shelf.trim(self.keeping, self._clock())
            self._keeper.look()

    def was_ended(self, idle_s: float, age_s: float) -> None:
        """The other side ended a tunnel so long after its last byte, at this age. Does not block."""
        self._keeper.was_ended(idle_s, age_s)

    def retry_now(self) -> None:
        """Forget the waits after failures."""
        self._keeper.forgive()
        self._supplier.reset()
        self._supplier.dial_for_clients()
        self._keeper.look()

    def distrust(self, error: TunnelError) -> None:
        """Take this for the outcome of the last dial."""
        self._supplier.last_error = error

    def drain(self, reason: Reason) -> None:
        """Keep nothing warm any more; clients that were accepted already still get tunnels, each by its own dial."""
        self._is_draining = True
        self._keeper.refills = False
        if self._reserve is not None:
            self._reserve.leave(self)
        self._shelf.empty(reason)

    def close(self, reason: Reason) -> None:
        """Drain, and refuse whoever still waits or comes; leased tunnels are the sessions' own."""
        self._is_closed = True
        self.drain(reason)
        self._keeper.close()
        self._supplier.close()
        while waiter := self._supplier.waiters.next():
            waiter.set_exception(PoolClosed(f"route {self._route.name} is closing"))

    # --- as a reserve of others -------------------------------------------------------------------------------------

    def keep(self, minimum: int) -> None:
        """Keep at least so many warm from now on. Does not block."""
        self._demand.minimum = minimum
        self._keeper.look()

    def take_secured(self) -> Tunnel | None:
        """The oldest TLS connection that is alive, if there is one. Does not block."""
        self._note_take(self.keeping, self._clock())
        return self._shelf.take_secured()

    def empty(self) -> None:
        """Nobody needs it any more."""
        self.close(Reason.UNWANTED)

    # --- tunnels ----------------------------------------------------------------------------------------------------

    def _decay(self) -> None:
        """Nobody has used the route for long: what becomes of the gateway, the reserve notices for it."""
        if self._reserve is None or self._is_draining:
            return
        self._reserve.join(self)
        error = self._supplier.last_error
        if error is not None and error.phase not in AFTER_TLS:
            self._supplier.last_error = None
            self._supplier.reset()

    def _wake_up(self, keeping: WarmTarget) -> None:
        """Somebody uses the route again: one connection of the reserve is its own then."""
        if self._reserve is None or self._is_draining:
            return
        connection = self._reserve.take()
        self._reserve.leave(self)
        if connection is not None:
            self._shelf.put(connection, keeping.max_age_s)

    def _wait_for_one(self, deadline: Deadline) -> Tunnel:
        waiters = self._supplier.waiters
        if not waiters.has_room:
            self._memory.refusals["full"] += 1
            raise PoolExhausted(f"{self.waiting} clients wait for a tunnel of route {self._route.name} already")
        waiter = AsyncResult()
        waiters.join(waiter)
        self._supplier.dial_for_clients()
        self._keeper.look_if_open()
        try:
            with Timeout(deadline.remaining_s, False):
                waiter.wait()
        except BaseException:  # this client was killed while it waited
            waiters.leave(waiter)
            if waiter.successful():
                self._supply(waiter.get_nowait(), is_refill=False)
            raise
        if not waiter.ready():
            waiters.leave(waiter)
            raise self._starved(deadline)
        if waiter.exception is not None:
            self._memory.refusals["failed"] += 1
            raise waiter.exception.with_traceback(None)  # it may be the outcome of many
        tunnel: Tunnel = waiter.get_nowait()
        return tunnel

    def _starved(self, deadline: Deadline) -> PoolExhausted:
        self._memory.refusals["starved"] += 1
        self._log.warning(events.POOL_STARVED, warm=self.warm_count, waiting=self.waiting)
        return PoolExhausted(
            f"no tunnel of route {self._route.name} was ready within {deadline.budget_s:g} s"
            + (f"; last failure: {self.last_error}" if self.last_error else "")
        )

    def _supply(self, tunnel: Tunnel, *, is_refill: bool) -> None:
        """Give a tunnel to the client that has waited longest, else to the stock."""
        if tunnel.early:
            self._heard(tunnel)
        keeping = self.keeping
        has_room = self.warm_count < keeping.within(self._demand.maximum)
        listens = is_refill and keeping.why is PolicyReason.PROBING and has_room
        waiter = self._supplier.waiters.next() if tunnel.is_ready and not listens else None
        if waiter is not None:
            waiter.set(tunnel)
        elif self._is_draining or not keeping.wants(is_whole=tunnel.is_ready):
            # Idle it could hurt the destination. Who dialled it, if not the stock, has left.
            self._shelf.discard(tunnel, Reason.UNWANTED if is_refill else Reason.ABORTED)
        elif not has_room:
            self._shelf.discard(tunnel, Reason.UNWANTED)
        else:
            if tunnel.is_ready:
                self._memory.warmth.listening(self._clock())
            self._shelf.put(tunnel, keeping.max_age_s)
            self._log.debug(events.POOL_FILLED, warm=self.warm_count, target=self.target)

    def _heard(self, tunnel: Tunnel) -> None:
        """The destination has said something on a tunnel that nobody has leased. Called in the hub."""
        self.heard(bytes(tunnel.early[:GREETING_BYTES]), tunnel.accepted_s)

    def _ended(self, tunnel: Tunnel) -> None:
        """A warm tunnel has ended by itself. Called in the hub."""
        now, age_s = self._clock(), tunnel.age_ms / 1000
        self._gateway.lost(self._route.name, age_s)
        if tunnel.is_ready:
            self._memory.warmth.stopped_listening()
            self._memory.early_ends.note(age_s, now)
        self._keeper.lost(age_s, now)
