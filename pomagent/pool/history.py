"""What a route keeps when its pool is replaced, so that a rotated token does not make it learn its server anew."""

from __future__ import annotations

from collections import Counter

from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.pool.early_closes import EarlyCloses
from pomagent.pool.hidden_timeouts import HiddenTimeouts
from pomagent.pool.outage import Outage
from pomagent.pool.wakeup import WakeupTimer
from pomagent.pool.warm_policy import WarmPolicy
from pomagent.runtime.deadline import Clock
from pomagent.settings import Route


class RouteHistory:
    """What is known of one route's server, and counters that only grow."""

    def __init__(self, route: Route, log: Logger, clock: Clock) -> None:
        self._route = route
        self._log = log
        self._clock = clock
        self.policy = WarmPolicy(route, clock())
        self.early_closes = EarlyCloses()
        self.hidden_timeouts = HiddenTimeouts()
        self.outage = Outage()
        self.wakeup: WakeupTimer | None = None
        """Wakes the housekeeper of the route's present pool."""
        self.leases: Counter[str] = Counter()
        """Clients by how they were served: by a warm ``tunnel``, over a warm ``tls`` connection, or ``cold``."""
        self.refusals: Counter[str] = Counter()
        """Clients refused a tunnel: the queue was ``full``, none was ready in time (``starved``), or its dial
        ``failed``."""
        self.discards: Counter[str] = Counter()
        """Tunnels closed before any client used them, by reason."""
        self.failures: Counter[str] = Counter()
        """Failed dials, by the name of the error."""

    def note_greeting(self, first: bytes, after_s: float) -> bool:
        """Learn from the first bytes of a server that spoke first, and return whether they change what is kept warm.

        ``after_s`` is the time since the CONNECT was accepted. Does not block.
        """
        if not self.policy.note_greeting(first, after_s):
            return False
        self.log_policy(events.ROUTE_CLASSIFIED)
        if self.wakeup is not None:
            self.wakeup.ring()
        return True

    def note_close(self, idle_s: float, age_s: float) -> None:
        """Learn from a tunnel that the gateway's side closed, ``idle_s`` after its last byte. Does not block."""
        self.outage.was_alive(self._clock())
        timeout = self.hidden_timeouts.note(idle_s, age_s)
        if timeout is not None:
            self._log.info(
                events.PERIOD_DETECTED, kind=timeout.kind, period_ms=round(timeout.seconds * 1000),
                times=timeout.times, why=str(timeout),
            )  # fmt: skip

    def log_policy(self, event: str, **fields: object) -> None:
        """Log what the route keeps warm from now on, and why."""
        target = self.policy.target(self._clock())
        log = self._log.warning if event == events.ROUTE_DEMOTED else self._log.info
        log(event, protocol=self.policy.protocol, warm=target.level, why=target.reason.value, **fields)

    def follow(self, route: Route) -> None:
        """Apply changed settings, and forget what was learned if they name another server, or set another level."""
        old, self._route = self._route, route
        if _server_of(old) == _server_of(route):
            self.policy.follow(route)
        else:
            self.policy = WarmPolicy(route, self._clock())
            self.early_closes, self.hidden_timeouts, self.outage = EarlyCloses(), HiddenTimeouts(), Outage()


def _server_of(route: Route) -> tuple[object, ...]:
    return route.destination, route.gateway.address, route.protocol, route.warm
