"""Begins the dials of one route, for clients that wait and for the stock, and tells whoever their outcome concerns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gevent.event import AsyncResult

from pomagent.errors import PoolError, Recovery, TunnelError
from pomagent.gateway.failure_log import AFTER_TLS
from pomagent.gateway.health import GatewayHealth
from pomagent.gateway.tunnel import Tunnel
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.pool.backoff import Dice
from pomagent.pool.breaker import Breaker
from pomagent.pool.demand import Demand
from pomagent.pool.dial_budget import MAX_DIALS_PER_ROUTE, DialBudget
from pomagent.pool.history import RouteHistory
from pomagent.pool.waiters import Waiters
from pomagent.pool.warm_policy import WarmTarget
from pomagent.pool.warm_tunnels import WarmTunnels
from pomagent.runtime.deadline import Clock
from pomagent.runtime.greenlets import GreenletReuse, Task

BACK_AFTER_S = 1.0
"""After a failure on the way to the gateway, before another route's success makes this one try again."""


class Opener(Protocol):
    """What a pool needs to know about tunnels: ``connector.Connector``, or a stand-in.

    ``urgent``: a client waits for it.
    """

    def secure(self, *, urgent: bool) -> Tunnel: ...
    def open(self, tunnel: Tunnel, *, urgent: bool) -> Tunnel: ...


class Supply(Protocol):
    """Takes a tunnel that a dial brought; ``is_refill``: one for the stock."""

    def __call__(self, tunnel: Tunnel, *, is_refill: bool) -> None: ...


class DialScheduler:
    """The dials under way of one pool, and what their failures allow."""

    def __init__(
        self, route: str, opener: Opener, shelf: WarmTunnels, demand: Demand, memory: RouteHistory,
        gateway: GatewayHealth, log: Logger, clock: Clock, dice: Dice, greenlets: GreenletReuse, *, supply: Supply,
        on_change: Callable[[], None],
    ) -> None:  # fmt: skip
        """``on_change`` is called whenever more, or fewer, dials may be wanted."""
        self._route = route
        self._opener = opener
        self._shelf = shelf
        self._demand = demand
        self._memory = memory
        self._gateway = gateway
        self._log = log
        self._clock = clock
        self._dice = dice
        self._supply = supply
        self._on_change = on_change
        self._greenlets = greenlets
        self._tasks: set[Task] = set()
        """Dials under way."""
        self._failed_at = 0.0
        self._shared_mark = 0
        """Clients that came before it are covered by a dial."""
        self.waiters: Waiters[AsyncResult] = Waiters()
        self.dials = DialBudget()
        self.breaker = Breaker(dice)
        self.last_error: TunnelError | None = None
        """Of the last dial, None after one that succeeded: of a CONNECT, only after one was accepted."""
        self.has_succeeded = False
        """Whether a CONNECT has ever been accepted."""

    @property
    def share_at(self) -> float | None:
        """When a dial may begin that clients wait for; None if they need none, or until another has ended."""
        return self.breaker.share_at if self._is_share_wanted and self._has_place else None

    def dial_for_clients(self) -> None:
        """A dial for each client that waits; while the breaker is open, one for all of them, and at most one a second.

        A failure is the outcome only of those who came before the dial began: nobody is refused by what was earlier.
        """
        if not self.waiters:
            return
        now = self._clock()
        if not self.breaker.is_open:
            wanted = self.dials.wanted_by_clients(len(self.waiters))
        else:
            wanted = int(self._is_share_wanted and self._has_place and now >= self.breaker.share_at)
        for _ in range(wanted):
            self.breaker.begun(now)
            self.dials.by_clients += 1
            self._shared_mark = self.waiters.mark
            self._spawn("dial for a client", self._serve_client, self.waiters.mark)

    def refills_wanted(self, keeping: WarmTarget, missing: int) -> int:
        """How many dials the stock needs, when the waits after failures are over."""
        wanted = self.dials.wanted_by_stock(missing, len(self.waiters))
        if self.breaker.is_open and not self._is_about_connects(keeping):
            wanted = min(wanted, 1 - self.dials.by_stock)  # to find out
        return max(0, wanted)

    def refill(self, keeping: WarmTarget, count: int) -> None:
        """Begin so many dials for the stock."""
        for _ in range(count):
            self.dials.by_stock += 1
            self._spawn("refill", self._fill_up, keeping)

    def reset(self) -> None:
        """Forget the failures: something changed that may heal them."""
        now = self._clock()
        self._tell_closed(self.breaker.failures, self.breaker.open_s(now), is_closed=self.breaker.reset())

    def close(self) -> None:
        """Break all dials off."""
        for task in self._tasks:
            task.kill()
        self.reset()

    # --- one dial ---------------------------------------------------------------------------------------------------

    def _serve_client(self, mark: int) -> None:
        """Dial for whoever waits; its failure is the outcome of the client that has waited longest, or of all."""
        try:
            tunnel = self._dial(self._open_for_client)
        except TunnelError as error:
            self._fail(error, mark)
        except Exception as bug:
            self._fail(PoolError(f"a dial for route {self._route} crashed: {type(bug).__name__}"), mark)
            raise
        else:
            self._supply(tunnel, is_refill=False)
        finally:
            self.dials.by_clients -= 1
            self._ended()

    def _fill_up(self, keeping: WarmTarget) -> None:
        """Dial for the stock; its failure only delays the next try."""
        try:
            tunnel = self._dial(lambda: self._open_for_stock(keeping))
        except TunnelError:
            pass  # the connector has logged it, and the breaker knows
        else:
            self._supply(tunnel, is_refill=True)
        finally:
            self.dials.by_stock -= 1
            self._ended()

    def _ended(self) -> None:
        """A place is free again."""
        self.dial_for_clients()
        self._on_change()

    def _open_for_client(self) -> Tunnel:
        secured = self._shelf.take_secured() or self._opener.secure(urgent=True)
        return self._opener.open(secured, urgent=True)

    def _open_for_stock(self, keeping: WarmTarget) -> Tunnel:
        if keeping.level != "tunnel":
            return self._opener.secure(urgent=False)
        secured = self._shelf.take_secured() or self._opener.secure(urgent=False)
        return self._opener.open(secured, urgent=False)

    def _dial(self, dial: Callable[[], Tunnel]) -> Tunnel:
        began = self._clock()
        try:
            tunnel = dial()
        except TunnelError as error:
            self.last_error = error
            self._memory.failures[error.kind] += 1
            self._failed(error.recovery, getattr(error, "retry_after_s", 0.0))
            if error.phase not in AFTER_TLS:
                self._gateway.when_back(self._try_soon)
            raise
        except Exception:
            self._failed(Recovery.RETRY)  # a bug must not be met again in a tight loop
            raise
        self._demand.dial_took(self._clock() - began)
        self._succeeded(tunnel)
        return tunnel

    # --- its outcome ------------------------------------------------------------------------------------------------

    def _succeeded(self, tunnel: Tunnel) -> None:
        if tunnel.is_ready:
            self.has_succeeded = True
        elif self.last_error is not None and self.last_error.phase in AFTER_TLS:
            return
        self.last_error = None
        now = self._clock()
        self._tell_closed(self.breaker.failures, self.breaker.open_s(now), is_closed=self.breaker.succeeded(now))

    def _failed(self, recovery: Recovery, at_least_s: float = 0.0) -> None:
        now = self._failed_at = self._clock()
        if self.breaker.failed(recovery, now, at_least_s):
            self._log.warning(
                events.BREAKER_OPENED, failures=self.breaker.failures, error=str(self.last_error or ""),
                retry_in_ms=round((self.breaker.retry_at - now) * 1000),
            )  # fmt: skip

    def _try_soon(self, spread_s: float) -> None:
        """The gateway lets others in again; not at once after a failure: it may let in some and others not."""
        self.breaker.hurry(max(self._clock() + self._dice(0.0, spread_s), self._failed_at + BACK_AFTER_S))
        self._on_change()

    def _fail(self, error: Exception, mark: int) -> None:
        if self.breaker.is_open:
            concerned = self.waiters.before(mark)
        elif self.dials.suffice_without_one(len(self.waiters)):
            return
        else:
            waiter = self.waiters.next_before(mark)
            concerned = [] if waiter is None else [waiter]
        for waiter in concerned:
            waiter.set_exception(error)

    @property
    def _is_share_wanted(self) -> bool:
        """Whether somebody waits whom no dial covers: those that did may have failed before the breaker opened."""
        is_uncovered = self.dials.by_clients == 0 and len(self.waiters) > 0
        return self.breaker.is_open and (is_uncovered or self.waiters.has_since(self._shared_mark))

    @property
    def _has_place(self) -> bool:
        return self.dials.by_clients + self.dials.by_stock < MAX_DIALS_PER_ROUTE

    def _is_about_connects(self, keeping: WarmTarget) -> bool:
        """Whether failures of CONNECTs say nothing about what the route keeps warm."""
        return keeping.level == "tls" and self.last_error is not None and self.last_error.phase in AFTER_TLS

    def _tell_closed(self, failures: int, open_s: float, *, is_closed: bool) -> None:
        if is_closed:
            self._log.info(events.BREAKER_CLOSED, failures=failures, open_ms=round(open_s * 1000))

    def _spawn(self, name: str, run: Callable[..., None], argument: object) -> None:
        name = f"pool {self._route}: {name}"
        self._tasks.add(self._greenlets.begin(lambda: run(argument), name, self._tasks.discard))
