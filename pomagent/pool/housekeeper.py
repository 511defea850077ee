"""Looks after what a pool has warm: closes what is over, begins refills, notices what time shows of the server."""

from __future__ import annotations

import sys
from collections.abc import Callable

import gevent
from gevent.pool import Group

from pomagent.gateway.health import GatewayHealth
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.pool.backoff import Backoff, Dice
from pomagent.pool.demand import Demand
from pomagent.pool.dialing import DialScheduler
from pomagent.pool.history import RouteHistory
from pomagent.pool.wakeup import WakeupTimer
from pomagent.pool.warm_policy import PolicyReason, WarmTarget
from pomagent.pool.warm_tunnels import WarmTunnels
from pomagent.runtime.deadline import Clock
from pomagent.settings import Route

RESTART_S = 1.0
"""A keeper that crashed has its bug again at once; not in a tight loop."""
LATE_S = 1.0
"""A pool that is below its minimum for longer, and for longer than a dial, does not get what it asks for."""
LOOK_AROUND_S = 0.1
"""After a warm tunnel has ended, before it is replaced: by then it shows whether all of its gateway went with it."""


class Housekeeper:
    """One greenlet that sleeps until there is something to do: an idle route costs nothing else."""

    def __init__(
        self, route: Route, memory: RouteHistory, gateway: GatewayHealth, shelf: WarmTunnels,
        supplier: DialScheduler, demand: Demand, log: Logger, clock: Clock, dice: Dice, alarm: WakeupTimer,
    ) -> None:  # fmt: skip
        """``alarm`` is rung by whoever has changed something."""
        self._route = route
        self._memory = memory
        self._gateway = gateway
        self._shelf = shelf
        self._supplier = supplier
        self._demand = demand
        self._log = log
        self._clock = clock
        self._dice = dice
        self._group = Group()
        self._alarm = alarm
        self._calm = Backoff(dice)
        """After warm tunnels that ended young: dials work, so that clients need not know."""
        self._refill_from = 0.0
        self._short_since: float | None = None
        """When the stock fell below the minimum; None while it has not."""
        self._lost_at: float | None = None
        """When a warm tunnel ended; None once its replacement has its time."""
        self.on_decay: Callable[[], None] = lambda: None
        """Called again and again while the route has decayed."""
        self.refills = True
        """False in a drain."""

    def start(self) -> None:
        self._group.spawn(self._keep_going).name = f"pool {self._route.name}: keeper"

    def close(self) -> None:
        self._group.kill(block=False)
        self._alarm.close()

    # --- what it is told --------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Something has changed. Does not block."""
        self._alarm.ring()

    def look_if_open(self) -> None:
        """A client waits: unless failures forbid it, its dial has begun, and there is nothing to do. Does not block."""
        if self._supplier.breaker.is_open:
            self.look()

    def taken(self, keeping: WarmTarget, now: float) -> None:
        """A client asked for a tunnel: nothing has to be done about it before the refill is due. Does not block."""
        if now >= self._refill_from:  # not later with each take: under load there would be no refill at all
            self._refill_from = now + self._demand.refill_delay_s
        if keeping.level != "off":
            self._alarm.ring_by(self._refill_from)

    def lost(self, age_s: float, now: float) -> None:
        """A warm tunnel of this age ended by itself."""
        early_ends = self._memory.early_ends
        self._lost_at = now if self._lost_at is None else self._lost_at
        self._refill_from = max(self._refill_from, now + LOOK_AROUND_S)
        if early_ends.is_suspicious:
            self._refill_from = max(self._refill_from, early_ends.due_at or 0.0)
        self._calm.ended_early(age_s, now)
        self.look()

    def was_ended(self, idle_s: float, age_s: float) -> None:
        """The other side ended a tunnel so long after its last byte, at this age."""
        period = self._memory.periods.note(idle_s, age_s)
        if period is not None:
            self._log.info(
                events.PERIOD_DETECTED, kind=period.kind, period_ms=round(period.seconds * 1000), times=period.times,
                why=str(period),
            )  # fmt: skip

    def forgive(self) -> None:
        """Forget the waits after warm tunnels that ended young."""
        self._calm.reset()

    def target(self, keeping: WarmTarget, now: float) -> int:
        """How many should be warm."""
        if keeping.level == "off":
            return 0
        depth = keeping.within(self._demand.target(now))
        most = self._memory.early_ends.most(now) if keeping.level == "tunnel" else None
        return depth if most is None else min(depth, most)

    def is_short(self, now: float) -> bool:
        """Whether the stock has been below its minimum for longer than it takes to dial."""
        late_s = max(LATE_S, 2 * self._demand.dial_s)
        return self._short_since is not None and now - self._short_since > late_s

    def tell_level(self, event: str, **fields: object) -> None:
        """Log what is kept warm from now on, and why."""
        warmth = self._memory.warmth
        keeping = warmth.keeping(self._clock())
        tell = self._log.warning if event == events.ROUTE_DEMOTED else self._log.info
        tell(event, protocol=warmth.protocol, warm=keeping.level, why=keeping.why.value, **fields)

    # --- what it does -----------------------------------------------------------------------------------------------

    def _keep_going(self) -> None:
        while True:
            try:
                self._keep()
            except Exception:  # noqa: BLE001 - the crash boundary of this greenlet: a bug costs a second, not the route
                gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())
                gevent.sleep(RESTART_S)

    def _keep(self) -> None:
        while True:
            now = self._clock()
            self._note_changes(now)
            keeping = self._memory.warmth.keeping(now)
            self._shelf.trim(keeping, now)
            if keeping.why is PolicyReason.DECAYED:
                self.on_decay()
            begin = self._refill(keeping, now)
            self._supplier.dial_for_clients()
            self._alarm.wait_until(self._next_at(now, begin))

    def _note_changes(self, now: float) -> None:
        """What time alone has shown of the route's server, and of its gateway."""
        warmth, early_ends = self._memory.warmth, self._memory.early_ends
        if early_ends.due_at is not None and now >= early_ends.due_at:
            age_s, was_the_gateway = early_ends.age_s, self._gateway.losses.were_of_the_gateway(now)
            if not was_the_gateway:
                self.was_ended(age_s, age_s)
            if early_ends.judge(was_the_gateway=was_the_gateway, is_on_trial=warmth.is_on_trial):
                ages = {"ended_after_ms": round(age_s * 1000), "retry_in_ms": round(warmth.demote(now) * 1000)}
                self.tell_level(events.ROUTE_DEMOTED, **ages)
        if warmth.listened(now):
            self.tell_level(events.ROUTE_CLASSIFIED)
        if warmth.promoted(now) or warmth.passed(now):
            self.tell_level(events.ROUTE_PROMOTED)
        if self._lost_at is not None and now >= self._lost_at + LOOK_AROUND_S:
            self._lost_at = None
            if spread_s := self._gateway.losses.spread_s(now):
                self._refill_from = max(self._refill_from, now + self._dice(0.0, spread_s))

    def _refill(self, keeping: WarmTarget, now: float) -> float | None:
        """Begin the dials that the stock needs; if that is not allowed yet, return when it is."""
        target = self.target(keeping, now) if self.refills else 0
        missing = target - self._shelf.count(keeping)
        self._note_depth(now, is_short=missing > max(0, target - self._demand.minimum))
        wanted = self._supplier.refills_wanted(keeping, missing) if missing > 0 else 0
        if not wanted:
            return None
        begin = max(self._refill_from, self._supplier.breaker.retry_at, self._calm.retry_at)
        if now < begin:
            return begin
        self._supplier.refill(keeping, wanted)
        return None

    def _note_depth(self, now: float, *, is_short: bool) -> None:
        if not is_short:
            self._short_since = None
        elif self._short_since is None:
            self._short_since = now

    def _next_at(self, now: float, begin: float | None) -> float | None:
        """When there is something to do, unless something changes before; None if there is not."""
        memory = self._memory
        look_at = None if self._lost_at is None else self._lost_at + LOOK_AROUND_S
        moments = (
            begin, look_at, self._supplier.share_at, memory.early_ends.due_at, memory.warmth.next_at(now),
            self._shelf.next_expiry(),
        )  # fmt: skip
        return min((at for at in moments if at is not None), default=None)
