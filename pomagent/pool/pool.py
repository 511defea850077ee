"""Keeps the tunnels of one route warm: lease, refill, retire."""

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
from pomagent.pool.demand import REFILL_DELAY_S, Demand
from pomagent.pool.dials import Dials
from pomagent.pool.stock import Stock
from pomagent.pool.waiters import Waiters
from pomagent.protocol.lifecycle import Reason, State
from pomagent.settings import Route, Warm
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
        self, route: Route, opener: Opener, log: Logger,
        *, clock: Clock = time.monotonic, dice: Dice = random.uniform,
    ) -> None:  # fmt: skip
        self._route = route
        self._level: Warm = route.warm
        self._opener = opener
        self._log = log
        self._clock = clock
        self._stock: Stock[Tunnel] = Stock(dice)
        self._waiters: Waiters[AsyncResult] = Waiters()
        self._demand = Demand(*((0, 0) if route.warm == "off" else (route.pool_min, route.pool_max)))
        self._dials = Dials()
        self._backoff = Backoff(dice)
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
        return len(self._stock)

    @property
    def target(self) -> int:
        """How many should be warm now."""
        return self._demand.target(self._clock())

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
        if now >= self._refill_from:  # not later with each take: under load there would be no refill at all
            self._refill_from = now + REFILL_DELAY_S
        self._wake.set()
        tunnel = (self._take() if self._level == "tunnel" else None) or self._wait_for_one(deadline)
        tunnel.lease()
        return tunnel

    def drain(self, reason: Reason) -> None:
        """Keep nothing warm any more; clients that were accepted already still get tunnels, each by its own dial."""
        self._is_draining = True
        self._keeper.kill(block=False)
        for tunnel in self._stock.beyond(0):
            self._discard(tunnel, reason)

    def close(self, reason: Reason) -> None:
        """Drain, and refuse whoever still waits or comes; leased tunnels are the sessions' own."""
        self._is_closed = True
        self.drain(reason)
        self._group.kill(block=False)
        while waiter := self._waiters.next():
            waiter.set_exception(PoolClosed(f"route {self._route.name} is closing"))

    def retry_now(self) -> None:
        """Forget the wait after failures."""
        self._backoff.reset()
        self._wake.set()

    def _take(self) -> Tunnel | None:
        """The oldest warm tunnel that is still alive at this moment."""
        while (tunnel := self._stock.take()) is not None:
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
            tunnel: Tunnel = waiter.get_nowait()
            return tunnel
        self._waiters.leave(waiter)
        self._log.warning(events.POOL_STARVED, warm=self.warm, waiting=self.waiting)
        raise PoolExhausted(
            f"no tunnel of route {self._route.name} was ready within {deadline.budget_s:g} s"
            + (f"; last failure: {self.last_error}" if self.last_error else "")
        )

    # --- the keeper -----------------------------------------------------------------------------------------------

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
            for tunnel in self._stock.expired(now):
                self._discard(tunnel, Reason.EXPIRED)
            wanted = 0 if self._level == "off" else self._dials.wanted_by_stock(self.target - self.warm, self.waiting)
            begin = max(self._refill_from, self._backoff.retry_at)
            if wanted and now >= begin:
                self._dial_for_stock(wanted)
                wanted = 0
            self._wake.wait(self._pause(now, begin if wanted else None))

    def _pause(self, now: float, begin: float | None) -> float | None:
        moments = [at for at in (self._stock.next_expiry(), begin) if at is not None]
        return max(0.001, min(moments) - now) if moments else None

    # --- dials ----------------------------------------------------------------------------------------------------

    def _dial_for_clients(self) -> None:
        for _ in range(self._dials.wanted_by_clients(self.waiting)):
            self._dials.by_clients += 1
            self._spawn("dial for a client", self._serve_client)

    def _dial_for_stock(self, count: int) -> None:
        for _ in range(count):
            self._dials.by_stock += 1
            self._spawn("refill", self._fill_up)

    def _serve_client(self) -> None:
        """Dial for whoever waits; its failure is the outcome of the client that has waited longest."""
        try:
            tunnel = self._dial(self._open_for_client)
        except TunnelError as error:
            self._fail_one(error)
        except Exception as bug:
            self._fail_one(PoolError(f"a dial for route {self._route.name} crashed: {type(bug).__name__}"))
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
            pass  # the connector has logged it, and the back-off knows
        else:
            self._supply(tunnel)
        finally:
            self._dials.by_stock -= 1
            self._dial_for_clients()
            self._wake.set()

    def _open_for_client(self) -> Tunnel:
        secured = self._take() if self._level == "tls" else None
        return self._opener.open(secured or self._opener.secure())

    def _open_for_stock(self) -> Tunnel:
        tunnel = self._opener.secure()
        return self._opener.open(tunnel) if self._level == "tunnel" else tunnel

    def _dial(self, dial: Callable[[], Tunnel]) -> Tunnel:
        began = self._clock()
        try:
            tunnel = dial()
        except TunnelError as error:
            self.last_error = error
            self._backoff.failed(error.recovery, self._clock(), getattr(error, "retry_after_s", 0.0))
            raise
        except Exception:
            self._backoff.failed(Recovery.RETRY, self._clock())  # a bug must not be met again in a tight loop
            raise
        now = self._clock()
        self._backoff.succeeded(now)
        self._demand.dial_took(now - began)
        if tunnel.is_ready:
            self.has_succeeded = True
        if tunnel.is_ready or (self.last_error is not None and self.last_error.phase not in AFTER_TLS):
            self.last_error = None
        return tunnel

    def _fail_one(self, error: Exception) -> None:
        if self._dials.suffice_without_one(self.waiting):
            return
        waiter = self._waiters.next()
        if waiter is not None:
            waiter.set_exception(error)

    def _supply(self, tunnel: Tunnel) -> None:
        """Give a tunnel to the client that has waited longest, else to the stock."""
        waiter = self._waiters.next() if tunnel.is_ready else None
        if waiter is not None:
            waiter.set(tunnel)
        elif self._is_draining or self.warm >= self._demand.maximum or (tunnel.is_ready and self._level != "tunnel"):
            self._discard(tunnel, Reason.ABORTED)  # its client has left; idle it could hurt the destination
        else:
            self._stock.put(tunnel, self._route.pool_max_age_s, self._clock())
            tunnel.keep_warm(self._ended)
            self._log.debug(events.POOL_FILLED, warm=self.warm, target=self.target)

    def _ended(self, tunnel: Tunnel) -> None:
        """Called in the hub when a warm tunnel ended by itself."""
        self._stock.remove(tunnel)
        self._discard(tunnel, Reason.PEER_CLOSED)
        self._backoff.ended_early(tunnel.age_ms / 1000, self._clock())
        self._wake.set()

    def _discard(self, tunnel: Tunnel, reason: Reason) -> None:
        tunnel.close(reason)
        self._log.debug(events.TUNNEL_CLOSED, reason=reason.value, age_ms=tunnel.age_ms, request_id=tunnel.request_id)

    def _spawn(self, name: str, run: Callable[[], None]) -> None:
        self._group.spawn(run).name = f"pool {self._route.name}: {name}"
