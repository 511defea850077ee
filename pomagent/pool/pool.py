"""Keeps the tunnels of one route warm: lease, refill, retire. It acts; the modules beside it decide."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import Protocol

import gevent
from gevent import Timeout
from gevent.event import AsyncResult, Event
from gevent.pool import Group

from pomagent import events
from pomagent.deadline import Clock, Deadline
from pomagent.errors import PoolClosed, PoolError, PoolExhausted, Recovery, TunnelError
from pomagent.log import Logger
from pomagent.pool.backoff import Backoff, Dice
from pomagent.pool.breaker import Breaker
from pomagent.pool.demand import REFILL_DELAY_S, Demand
from pomagent.pool.dials import MAX_DIALS_PER_ROUTE, Dials
from pomagent.pool.greeting import GREETING_BYTES
from pomagent.pool.memory import Memory
from pomagent.pool.stock import Stock
from pomagent.pool.waiters import Waiters
from pomagent.pool.warmth import Keeping, Why
from pomagent.protocol.lifecycle import Reason, State
from pomagent.settings import Route
from pomagent.tunnel import Tunnel

AFTER_TLS = ("token", "connect")
"""Phases that a connection without a CONNECT says nothing of."""
KEEPER_RESTART_S = 1.0
"""A keeper that crashed has its bug again at once; not in a tight loop."""


class Opener(Protocol):
    """What a pool needs to know about tunnels: ``connector.Connector``, or a stand-in."""

    def secure(self) -> Tunnel: ...
    def open(self, tunnel: Tunnel) -> Tunnel: ...


class Pool:
    """The warm tunnels of one route under one set of settings; a change of those makes a new pool."""

    def __init__(
        self, route: Route, opener: Opener, memory: Memory, log: Logger,
        *, clock: Clock = time.monotonic, dice: Dice = random.uniform,
    ) -> None:  # fmt: skip
        self._route = route
        self._opener = opener
        self._memory = memory
        self._log = log
        self._clock = clock
        self._ready: Stock[Tunnel] = Stock(dice)
        self._secured: Stock[Tunnel] = Stock(dice)
        self._waiters: Waiters[AsyncResult] = Waiters()
        self._demand = Demand(route.pool_min, route.pool_max)
        self._dials = Dials()
        self._breaker = Breaker(dice)
        self._calm = Backoff(dice)
        """After warm tunnels that ended young: dials work, so that clients need not know."""
        self._shared_mark = 0
        """Clients that came before it are covered by a shared dial."""
        self._wake = Event()
        self._group = Group()
        self._keeper = Group()
        self._refill_from = 0.0
        self._is_draining = False
        self._is_closed = False
        self.last_error: TunnelError | None = None
        """Of the last dial, None after one that succeeded: of a CONNECT, only after one was accepted."""
        self.has_succeeded = False
        """Whether a CONNECT has ever been accepted."""

    def __repr__(self) -> str:
        return f"<Pool {self._route.name}: {self.warm}/{self.target} warm, {self.waiting} waiting>"

    @property
    def warm(self) -> int:
        return len(self._ready) + len(self._secured)

    @property
    def target(self) -> int:
        """How many should be warm now."""
        return self._target(self._keeping, self._clock())

    @property
    def waiting(self) -> int:
        """How many clients wait for a tunnel."""
        return len(self._waiters)

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
        tunnel = self._take(self._ready) if self._keeping.may_be_leased else None
        if tunnel is not None:
            self._memory.takes["tunnel"] += 1
        else:
            tunnel = self._wait_for_one(deadline)
            self._memory.takes["tls" if tunnel.was_warm else "cold"] += 1
        tunnel.lease()
        return tunnel

    def drain(self, reason: Reason) -> None:
        """Keep nothing warm any more; clients that were accepted already still get tunnels, each by its own dial."""
        self._is_draining = True
        for stock in (self._ready, self._secured):
            self._discard_all(stock.beyond(0), reason)
        self._wake.set()

    def close(self, reason: Reason) -> None:
        """Drain, and refuse whoever still waits or comes; leased tunnels are the sessions' own."""
        self._is_closed = True
        self.drain(reason)
        self._keeper.kill(block=False)
        self._group.kill(block=False)
        self._tell_closed(is_closed=self._breaker.reset())
        while waiter := self._waiters.next():
            waiter.set_exception(PoolClosed(f"route {self._route.name} is closing"))

    def retry_now(self) -> None:
        """Forget the waits after failures."""
        self._calm.reset()
        self._tell_closed(is_closed=self._breaker.reset())
        self._dial_for_clients()
        self._wake.set()

    def heard(self, first: bytes, after_s: float) -> None:
        """The server spoke first, so long after it had accepted a tunnel. Does not block."""
        if self._memory.warmth.heard(first, after_s):
            self._tell_level(events.ROUTE_CLASSIFIED)
            self._trim(self._clock())
            self._wake.set()

    # --- leases -----------------------------------------------------------------------------------------------------

    def _take(self, stock: Stock[Tunnel]) -> Tunnel | None:
        """The oldest warm tunnel that is still alive at this moment."""
        while (tunnel := stock.take()) is not None:
            tunnel.look()
            if tunnel.state is not State.CLOSED:
                return tunnel
        return None

    def _wait_for_one(self, deadline: Deadline) -> Tunnel:
        if not self._waiters.has_room:
            raise PoolExhausted(f"{self.waiting} clients wait for a tunnel of route {self._route.name} already")
        waiter = AsyncResult()
        self._waiters.join(waiter)
        self._dial_for_clients()
        try:
            with Timeout(deadline.remaining_s, False):
                waiter.wait()
        except BaseException:  # this client was killed while it waited
            self._waiters.leave(waiter)
            if waiter.successful():
                self._supply(waiter.get_nowait())
            raise
        if waiter.ready():
            if waiter.exception is not None:
                raise waiter.exception.with_traceback(None)  # it may be the outcome of many
            tunnel: Tunnel = waiter.get_nowait()
            return tunnel
        self._waiters.leave(waiter)
        self._log.warning(events.POOL_STARVED, warm=self.warm, waiting=self.waiting)
        raise PoolExhausted(
            f"no tunnel of route {self._route.name} was ready within {deadline.budget_s:g} s"
            + (f"; last failure: {self.last_error}" if self.last_error else "")
        )

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
            self._trim(now)
            begin = self._refill(now)
            self._dial_for_clients()
            self._wake.wait(self._pause(now, begin))

    def _note_changes(self, now: float) -> None:
        """What time alone has shown of the route's server."""
        warmth, early_ends = self._memory.warmth, self._memory.early_ends
        is_due = early_ends.due_at is not None and now >= early_ends.due_at
        if is_due and early_ends.judge(was_the_gateway=False, is_on_trial=warmth.is_on_trial):
            pause_s = warmth.demote(now)
            self._tell_level(events.ROUTE_DEMOTED, retry_in_ms=round(pause_s * 1000))
        if warmth.listened(now):
            self._tell_level(events.ROUTE_CLASSIFIED)
        if warmth.promoted(now) or warmth.passed(now):
            self._tell_level(events.ROUTE_PROMOTED)

    def _trim(self, now: float) -> None:
        """Close what is over its age, and what the route does not keep warm any more."""
        for stock in (self._ready, self._secured):
            expired = stock.expired(now)
            self._discard_all(expired, Reason.EXPIRED)
            if expired and stock is self._ready:
                self._memory.early_ends.lived()
        keeping = self._keeping
        if keeping.level != "tunnel":
            self._discard_all(self._ready.beyond(0), Reason.UNWANTED)
        if keeping.is_single:
            self._discard_all(self._ready.beyond(1), Reason.UNWANTED)
            self._discard_all(self._secured.beyond(1), Reason.UNWANTED)

    def _refill(self, now: float) -> float | None:
        """Begin the dials that the stock needs; if that is not allowed yet, return when it is."""
        keeping = self._keeping
        stock = self._ready if keeping.level == "tunnel" else self._secured
        wanted = self._dials.wanted_by_stock(self._target(keeping, now) - len(stock), self.waiting)
        if self._breaker.is_open and not self._is_about_connects(keeping):
            wanted = min(wanted, 1 - self._dials.by_stock)  # to find out
        begin = max(self._refill_from, self._breaker.retry_at, self._calm.retry_at)
        if wanted <= 0 or self._is_draining:
            return None
        if now < begin:
            return begin
        for _ in range(wanted):
            self._dials.by_stock += 1
            self._spawn("refill", self._fill_up)
        return None

    def _pause(self, now: float, begin: float | None) -> float | None:
        share_at = self._breaker.share_at if self._shares else None
        memory = self._memory
        moments = [
            begin, share_at, memory.early_ends.due_at, memory.warmth.next_at(now),
            self._ready.next_expiry(), self._secured.next_expiry(),
        ]  # fmt: skip
        first = min((at for at in moments if at is not None), default=None)
        return None if first is None else max(0.001, first - now)

    @property
    def _keeping(self) -> Keeping:
        return self._memory.warmth.keeping(self._clock())

    def _target(self, keeping: Keeping, now: float) -> int:
        if keeping.level == "off":
            return 0
        target = self._demand.target(now)
        return min(1, target) if keeping.is_single else target

    def _has_room(self, keeping: Keeping) -> bool:
        return self.warm < (1 if keeping.is_single else self._demand.maximum)

    def _is_about_connects(self, keeping: Keeping) -> bool:
        """Whether failures of CONNECTs say nothing about what the route keeps warm."""
        return keeping.level == "tls" and self.last_error is not None and self.last_error.phase in AFTER_TLS

    # --- dials ------------------------------------------------------------------------------------------------------

    @property
    def _shares(self) -> bool:
        """Whether a dial is to be shared by clients that none has been begun for."""
        return self._breaker.is_open and self._waiters.has_since(self._shared_mark)

    def _dial_for_clients(self) -> None:
        """A dial for each client that waits; while the breaker is open, one for all of them, and at most one a second.

        A shared dial is the outcome only of those who came before it: nobody is refused by what failed earlier.
        """
        now = self._clock()
        if not self._breaker.is_open:
            wanted = self._dials.wanted_by_clients(self.waiting)
        else:
            has_place = self._dials.by_clients + self._dials.by_stock < MAX_DIALS_PER_ROUTE
            wanted = int(self._shares and has_place and now >= self._breaker.share_at)
        for _ in range(wanted):
            self._breaker.begun(now)
            self._dials.by_clients += 1
            self._shared_mark = self._waiters.mark
            self._spawn("dial for a client", self._serve_client, self._waiters.mark)

    def _serve_client(self, mark: int) -> None:
        """Dial for whoever waits; its failure is the outcome of the client that has waited longest, or of all."""
        try:
            tunnel = self._dial(self._open_for_client)
        except TunnelError as error:
            self._fail(error, mark)
        except Exception as bug:
            self._fail(PoolError(f"a dial for route {self._route.name} crashed: {type(bug).__name__}"), mark)
            raise
        else:
            self._supply(tunnel)
        finally:
            self._dials.by_clients -= 1
            self._dial_for_clients()
            self._wake.set()

    def _fill_up(self) -> None:
        """Dial for the stock; its failure only delays the next try."""
        try:
            tunnel = self._dial(self._open_for_stock)
        except TunnelError:
            pass  # the connector has logged it, and the breaker knows
        else:
            self._supply(tunnel, is_refill=True)
        finally:
            self._dials.by_stock -= 1
            self._dial_for_clients()
            self._wake.set()

    def _open_for_client(self) -> Tunnel:
        return self._opener.open(self._take(self._secured) or self._opener.secure())

    def _open_for_stock(self) -> Tunnel:
        if self._keeping.level != "tunnel":
            return self._opener.secure()
        return self._opener.open(self._take(self._secured) or self._opener.secure())

    def _dial(self, dial: Callable[[], Tunnel]) -> Tunnel:
        began = self._clock()
        try:
            tunnel = dial()
        except TunnelError as error:
            self.last_error = error
            self._memory.failures[error.kind] += 1
            self._failed(error.recovery, getattr(error, "retry_after_s", 0.0))
            raise
        except Exception:
            self._failed(Recovery.RETRY)  # a bug must not be met again in a tight loop
            raise
        now = self._clock()
        self._demand.dial_took(now - began)
        if tunnel.is_ready:
            self.has_succeeded = True
        if tunnel.is_ready or self.last_error is None or self.last_error.phase not in AFTER_TLS:
            self.last_error = None
            self._tell_closed(is_closed=self._breaker.succeeded(now))
        return tunnel

    def _failed(self, recovery: Recovery, at_least_s: float = 0.0) -> None:
        now = self._clock()
        if self._breaker.failed(recovery, now, at_least_s):
            self._log.warning(
                events.BREAKER_OPENED, failures=self._breaker.failures, error=str(self.last_error or ""),
                retry_in_ms=round((self._breaker.retry_at - now) * 1000),
            )  # fmt: skip

    def _fail(self, error: Exception, mark: int) -> None:
        if self._breaker.is_open:
            for waiter in self._waiters.before(mark):
                waiter.set_exception(error)
        elif not self._dials.suffice_without_one(self.waiting):
            waiter = self._waiters.next()
            if waiter is not None:
                waiter.set_exception(error)

    # --- tunnels ----------------------------------------------------------------------------------------------------

    def _supply(self, tunnel: Tunnel, *, is_refill: bool = False) -> None:
        """Give a tunnel to the client that has waited longest, else to the stock."""
        if tunnel.early:
            self._heard(tunnel)
        keeping, now = self._keeping, self._clock()
        listens = is_refill and keeping.why is Why.PROBING and self._has_room(keeping)
        waiter = self._waiters.next() if tunnel.is_ready and not listens else None
        if waiter is not None:
            waiter.set(tunnel)
        elif self._is_draining or not self._has_room(keeping) or not self._is_wanted(tunnel, keeping):
            self._discard(tunnel, Reason.ABORTED)  # its client has left; idle it could hurt the destination
        else:
            (self._ready if tunnel.is_ready else self._secured).put(tunnel, keeping.max_age_s, now)
            if tunnel.is_ready:
                self._memory.warmth.listening(now)
            tunnel.keep_warm(self._ended, self._heard)
            self._log.debug(events.POOL_FILLED, warm=self.warm, target=self.target)

    @staticmethod
    def _is_wanted(tunnel: Tunnel, keeping: Keeping) -> bool:
        return keeping.level == "tunnel" or (keeping.level == "tls" and not tunnel.is_ready)

    def _heard(self, tunnel: Tunnel) -> None:
        """Called in the hub when the destination said something on a warm tunnel."""
        self.heard(bytes(tunnel.early[:GREETING_BYTES]), tunnel.accepted_s)

    def _ended(self, tunnel: Tunnel) -> None:
        """Called in the hub when a warm tunnel ended by itself."""
        now, age_s = self._clock(), tunnel.age_ms / 1000
        self._ready.remove(tunnel)
        self._secured.remove(tunnel)
        if tunnel.is_ready:
            self._memory.warmth.stopped_listening()
            self._memory.early_ends.note(age_s, now)
            if self._memory.early_ends.is_suspicious:
                self._refill_from = max(self._refill_from, self._memory.early_ends.due_at or 0.0)
        self._discard(tunnel, Reason.PEER_CLOSED)
        self._calm.ended_early(age_s, now)
        self._wake.set()

    def _discard_all(self, tunnels: list[Tunnel], reason: Reason) -> None:
        for tunnel in tunnels:
            self._discard(tunnel, reason)

    def _discard(self, tunnel: Tunnel, reason: Reason) -> None:
        tunnel.close(reason)
        self._memory.discards[reason.value] += 1
        self._log.debug(events.TUNNEL_CLOSED, reason=reason.value, age_ms=tunnel.age_ms, request_id=tunnel.request_id)

    # --- what the log is told ---------------------------------------------------------------------------------------

    def _tell_level(self, event: str, **fields: object) -> None:
        keeping, warmth = self._keeping, self._memory.warmth
        tell = self._log.warning if event == events.ROUTE_DEMOTED else self._log.info
        tell(event, protocol=warmth.protocol, warm=keeping.level, why=keeping.why.value, **fields)

    def _tell_closed(self, *, is_closed: bool) -> None:
        if is_closed:
            self._log.info(events.BREAKER_CLOSED)

    def _spawn(self, name: str, run: Callable[..., None], *arguments: object) -> None:
        self._group.spawn(run, *arguments).name = f"pool {self._route.name}: {name}"
