"""Keeps the tunnels of one route warm: lease, refill, retire. It acts; most modules beside it decide."""

from __future__ import annotations

import random
import sys
import time

import gevent
from gevent import Timeout
from gevent.event import AsyncResult, Event
from gevent.pool import Group

from pomagent import events
from pomagent.deadline import Clock, Deadline
from pomagent.errors import PoolClosed, PoolExhausted, TunnelError
from pomagent.gateway_watch import GatewayWatch
from pomagent.log import Logger
from pomagent.pool.backoff import Backoff, Dice
from pomagent.pool.breaker import BreakerState
from pomagent.pool.demand import REFILL_DELAY_S, Demand
from pomagent.pool.dialler import Dialler, Opener
from pomagent.pool.greeting import GREETING_BYTES
from pomagent.pool.memory import Memory
from pomagent.pool.shelf import Shelf
from pomagent.pool.warmth import Keeping, Why
from pomagent.protocol.lifecycle import Reason
from pomagent.settings import Route
from pomagent.tunnel import Tunnel

KEEPER_RESTART_S = 1.0
"""A keeper that crashed has its bug again at once; not in a tight loop."""
LOOK_AROUND_S = 0.1
"""After a warm tunnel has ended, before it is replaced: by then it shows whether all of its gateway went with it."""


class Pool:
    """The warm tunnels of one route under one set of settings; a change of those makes a new pool."""

    def __init__(
        self, route: Route, opener: Opener, memory: Memory, gateway: GatewayWatch, log: Logger,
        *, clock: Clock = time.monotonic, dice: Dice = random.uniform,
    ) -> None:  # fmt: skip
        self._route = route
        self._memory = memory
        self._gateway = gateway
        self._log = log
        self._clock = clock
        self._dice = dice
        self._demand = Demand(route.pool_min, route.pool_max)
        self._shelf = Shelf(memory, log, clock, dice, on_end=self._ended, on_early=self._heard)
        self._dialler = Dialler(
            route.name, opener, self._shelf, self._demand, memory, log, clock, dice,
            supply=self._supply, on_change=self._look_again,
        )  # fmt: skip
        self._calm = Backoff(dice)
        """After warm tunnels that ended young: dials work, so that clients need not know."""
        self._wake = Event()
        self._keeper = Group()
        self._refill_from = 0.0
        self._lost_at: float | None = None
        """When a warm tunnel ended; None once its replacement has its time."""
        self._is_draining = False
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Pool {self._route.name}: {self.warm}/{self.target} warm, {self.waiting} waiting>"

    # --- what it is doing -------------------------------------------------------------------------------------------

    @property
    def warm(self) -> int:
        return len(self._shelf)

    @property
    def target(self) -> int:
        """How many should be warm now."""
        return self._target(self.keeping, self._clock())

    @property
    def waiting(self) -> int:
        """How many clients wait for a tunnel."""
        return len(self._dialler.waiters)

    @property
    def dialling(self) -> dict[str, int]:
        """Dials under way, by whom they are for."""
        return {"clients": self._dialler.dials.by_clients, "stock": self._dialler.dials.by_stock}

    @property
    def keeping(self) -> Keeping:
        """What is kept warm now, and why."""
        return self._memory.warmth.keeping(self._clock())

    @property
    def breaker(self) -> BreakerState:
        return self._dialler.breaker.state(self._clock())

    @property
    def retry_in_s(self) -> float:
        """How long the pool waits yet after failures; clients do not."""
        return max(0.0, self._dialler.breaker.retry_at - self._clock())

    @property
    def failures(self) -> int:
        """Dials that failed since the last that worked."""
        return self._dialler.breaker.failures

    @property
    def last_error(self) -> TunnelError | None:
        """Of the last dial, None after one that succeeded: of a CONNECT, only after one was accepted."""
        return self._dialler.last_error

    @property
    def has_succeeded(self) -> bool:
        """Whether a CONNECT has ever been accepted."""
        return self._dialler.has_succeeded

    # --- what others ask of it --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to keep tunnels warm."""
        self._keeper.spawn(self._keep_going).name = f"pool {self._route.name}: keeper"

    def lease(self, deadline: Deadline) -> Tunnel:
        """A tunnel that is ready, warm if there is one. Blocks.

        Raises PoolClosed, PoolExhausted when the budget is over or too many wait, and the TunnelError of the dial
        that was to serve this client.
        """
        if self._is_closed:
            raise PoolClosed(f"route {self._route.name} is closing")
        now = self._clock()
        self._demand.note_take(now)
        self._memory.warmth.used(now)
        if now >= self._refill_from:  # not later with each take: under load there would be no refill at all
            self._refill_from = now + REFILL_DELAY_S
        self._wake.set()
        tunnel = self._shelf.take_ready() if self.keeping.may_be_leased else None
        if tunnel is not None:
            self._memory.takes["tunnel"] += 1
        else:
            tunnel = self._wait_for_one(deadline)
            self._memory.takes["tls" if tunnel.was_warm else "cold"] += 1
        tunnel.lease()
        return tunnel

    def heard(self, first: bytes, after_s: float) -> None:
        """The server spoke first, so long after it had accepted a tunnel. Does not block."""
        if self._memory.warmth.heard(first, after_s):
            self._tell_level(events.ROUTE_CLASSIFIED)
            self._shelf.trim(self.keeping, self._clock())
            self._wake.set()

    def retry_now(self) -> None:
        """Forget the waits after failures."""
        self._calm.reset()
        self._dialler.reset()
        self._dialler.dial_for_clients()
        self._wake.set()

    def distrust(self, error: TunnelError) -> None:
        """Take this for the outcome of the last dial."""
        self._dialler.last_error = error

    def drain(self, reason: Reason) -> None:
        """Keep nothing warm any more; clients that were accepted already still get tunnels, each by its own dial."""
        self._is_draining = True
        self._shelf.empty(reason)
        self._wake.set()

    def close(self, reason: Reason) -> None:
        """Drain, and refuse whoever still waits or comes; leased tunnels are the sessions' own."""
        self._is_closed = True
        self.drain(reason)
        self._keeper.kill(block=False)
        self._dialler.close()
        while waiter := self._dialler.waiters.next():
            waiter.set_exception(PoolClosed(f"route {self._route.name} is closing"))

    # --- the keeper -------------------------------------------------------------------------------------------------

    def _keep_going(self) -> None:
        while True:
            try:
                self._keep()
            except Exception:  # noqa: BLE001 - the crash boundary of this greenlet: a bug costs a second, not the route
                gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())
                gevent.sleep(KEEPER_RESTART_S)

    def _keep(self) -> None:
        while True:
            self._wake.clear()
            now = self._clock()
            self._note_changes(now)
            self._shelf.trim(self.keeping, now)
            begin = self._refill(now)
            self._dialler.dial_for_clients()
            self._wake.wait(self._pause(now, begin))

    def _note_changes(self, now: float) -> None:
        """What time alone has shown of the route's server, and of its gateway."""
        warmth, early_ends = self._memory.warmth, self._memory.early_ends
        if early_ends.due_at is not None and now >= early_ends.due_at:
            was_the_gateway = self._gateway.losses.were_of_the_gateway(now)
            if early_ends.judge(was_the_gateway=was_the_gateway, is_on_trial=warmth.is_on_trial):
                pause_s = warmth.demote(now)
                self._tell_level(events.ROUTE_DEMOTED, retry_in_ms=round(pause_s * 1000))
        if warmth.listened(now):
            self._tell_level(events.ROUTE_CLASSIFIED)
        if warmth.promoted(now) or warmth.passed(now):
            self._tell_level(events.ROUTE_PROMOTED)
        if self._lost_at is not None and now >= self._lost_at + LOOK_AROUND_S:
            self._lost_at = None
            if spread_s := self._gateway.losses.spread_s(now):
                self._refill_from = max(self._refill_from, now + self._dice(0.0, spread_s))

    def _refill(self, now: float) -> float | None:
        """Begin the dials that the stock needs; if that is not allowed yet, return when it is."""
        if self._is_draining:
            return None
        keeping = self.keeping
        wanted = self._dialler.refills_wanted(keeping, self._target(keeping, now) - self._shelf.count(keeping))
        if not wanted:
            return None
        begin = max(self._refill_from, self._dialler.breaker.retry_at, self._calm.retry_at)
        if now < begin:
            return begin
        self._dialler.refill(keeping, wanted)
        return None

    def _pause(self, now: float, begin: float | None) -> float | None:
        memory = self._memory
        look_at = None if self._lost_at is None else self._lost_at + LOOK_AROUND_S
        moments = (
            begin, look_at, self._dialler.share_at, memory.early_ends.due_at, memory.warmth.next_at(now),
            self._shelf.next_expiry(),
        )  # fmt: skip
        first = min((at for at in moments if at is not None), default=None)
        return None if first is None else max(0.001, first - now)

    def _look_again(self) -> None:
        self._wake.set()

    def _target(self, keeping: Keeping, now: float) -> int:
        if keeping.level == "off":
            return 0
        target = self._demand.target(now)
        return min(1, target) if keeping.is_single else target

    # --- tunnels ----------------------------------------------------------------------------------------------------

    def _wait_for_one(self, deadline: Deadline) -> Tunnel:
        waiters = self._dialler.waiters
        if not waiters.has_room:
            raise PoolExhausted(f"{self.waiting} clients wait for a tunnel of route {self._route.name} already")
        waiter = AsyncResult()
        waiters.join(waiter)
        self._dialler.dial_for_clients()
        self._wake.set()
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
            raise waiter.exception.with_traceback(None)  # it may be the outcome of many
        tunnel: Tunnel = waiter.get_nowait()
        return tunnel

    def _starved(self, deadline: Deadline) -> PoolExhausted:
        self._log.warning(events.POOL_STARVED, warm=self.warm, waiting=self.waiting)
        return PoolExhausted(
            f"no tunnel of route {self._route.name} was ready within {deadline.budget_s:g} s"
            + (f"; last failure: {self.last_error}" if self.last_error else "")
        )

    def _supply(self, tunnel: Tunnel, *, is_refill: bool) -> None:
        """Give a tunnel to the client that has waited longest, else to the stock."""
        if tunnel.early:
            self._heard(tunnel)
        keeping = self.keeping
        has_room = self.warm < (1 if keeping.is_single else self._demand.maximum)
        listens = is_refill and keeping.why is Why.PROBING and has_room
        waiter = self._dialler.waiters.next() if tunnel.is_ready and not listens else None
        if waiter is not None:
            waiter.set(tunnel)
        elif self._is_draining or not has_room or not keeping.wants(is_whole=tunnel.is_ready):
            self._shelf.discard(tunnel, Reason.ABORTED)  # its client has left; idle it could hurt the destination
        else:
            if tunnel.is_ready:
                self._memory.warmth.listening(self._clock())
            self._shelf.put(tunnel, keeping.max_age_s)
            self._log.debug(events.POOL_FILLED, warm=self.warm, target=self.target)

    def _heard(self, tunnel: Tunnel) -> None:
        """The destination has said something on a tunnel that nobody has leased. Called in the hub."""
        self.heard(bytes(tunnel.early[:GREETING_BYTES]), tunnel.accepted_s)

    def _ended(self, tunnel: Tunnel) -> None:
        """A warm tunnel has ended by itself. Called in the hub."""
        now, age_s = self._clock(), tunnel.age_ms / 1000
        self._gateway.lost(self._route.name, age_s)
        self._lost_at = now if self._lost_at is None else self._lost_at
        self._refill_from = max(self._refill_from, now + LOOK_AROUND_S)
        if tunnel.is_ready:
            early_ends = self._memory.early_ends
            self._memory.warmth.stopped_listening()
            early_ends.note(age_s, now)
            if early_ends.is_suspicious:
                self._refill_from = max(self._refill_from, early_ends.due_at or 0.0)
        self._calm.ended_early(age_s, now)
        self._wake.set()

    def _tell_level(self, event: str, **fields: object) -> None:
        keeping = self.keeping
        tell = self._log.warning if event == events.ROUTE_DEMOTED else self._log.info
        tell(event, protocol=self._memory.warmth.protocol, warm=keeping.level, why=keeping.why.value, **fields)
