"""A pool with dials, tunnels, a clock and dice that the test controls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gevent

from pomagent.errors import GatewayUnreachable, PomagentError, PoolClosed, RouteForbidden
from pomagent.gateway.health import GatewayHealth
from pomagent.pool import Pool, PoolContext, RouteHistory
from pomagent.pool.shared_reserve import MAX_KEPT, Reserve
from pomagent.protocol.lifecycle import Reason
from pomagent.runtime.deadline import Deadline
from pomagent.runtime.greenlets import GreenletReuse
from pomagent.settings import Gateway, HostPort, Route
from tests.fakes.clock import FakeClock, FakeDice
from tests.fakes.greenlets import settle
from tests.fakes.log import FakeLog
from tests.fakes.tunnels import FakeOpener, FakeTunnel

ROUTE = Route(
    "orders", HostPort("127.0.0.1", 5432), HostPort("db.example.com", 5432),
    Gateway("corp", HostPort("edge.example.com", 443)), pool_min=2, pool_max=4, pool_max_age_s=100.0,
)  # fmt: skip
NAMED = {"gateway": "edge.example.com:443", "destination": "db.example.com:5432"}
DOWN = GatewayUnreachable("connection refused", phase="tcp", **NAMED)
DENIED = RouteForbidden("refused with 403", status=403, **NAMED)

GREENLETS = GreenletReuse()


class Scene:
    """A pool with dials, tunnels, a clock and dice that the test controls."""

    def __init__(self, route: Route, held: frozenset[str]) -> None:
        self.clock = FakeClock()
        self.dice = FakeDice(1.0)
        self.opener = FakeOpener(self.clock, held)
        self.fake_log = FakeLog()
        self.history = RouteHistory(route, self.fake_log.log, self.clock)
        self.gateway_health = GatewayHealth("edge.example.com:443", self.fake_log.log, self.clock)
        self.route = route
        self.reserve_opener = FakeOpener(self.clock, frozenset())
        self.reserve = Reserve(self._make_reserve)
        self.pool = self._make_pool()
        self.clients: list[gevent.Greenlet] = []

    def make_context(self, route: Route, history: RouteHistory) -> PoolContext:
        """Return what the parts of a pool of this route share."""
        return PoolContext(route, history, self.gateway_health, self.fake_log.log, GREENLETS, self.clock, self.dice)

    def _make_pool(self) -> Pool:
        context = self.make_context(self.route, self.history)
        return Pool(context, self.opener, self.reserve)  # type: ignore[arg-type]  # fake tunnels

    def _make_reserve(self) -> Pool:
        route = replace(self.route, name="reserve", warm="tls", pool_min=0, pool_max=MAX_KEPT, pool_decay_s=0.0)
        context = self.make_context(route, RouteHistory(route, self.fake_log.log, self.clock))
        self.reserve_pool = Pool(context, self.reserve_opener)  # type: ignore[arg-type]  # fake tunnels
        return self.reserve_pool

    def reconfigure(self, **changes: Any) -> None:
        """Apply changed settings as a forwarder does: a new pool with the same history."""
        self.route = replace(self.route, **changes)
        self.history.follow(self.route)
        old, self.pool = self.pool, self._make_pool()
        self.pool.start()
        old.close(Reason.STALE)
        settle()

    @property
    def pending(self) -> int:
        """Dials that wait for the test."""
        return len(self.opener.pending)

    def start(self) -> Scene:
        self.pool.start()
        settle()
        return self

    def filled(self) -> Scene:
        """Start the pool, and fill it to its target."""
        if not self.opener.dials:
            self.start()
        while self.opener.pending:
            self.succeed()
        return self

    def client(self, budget_s: float = 3600.0) -> gevent.Greenlet:
        """Start a client that asks for a tunnel. Its value is the tunnel, or the error."""

        def ask() -> object:
            while True:
                pool = self.pool
                try:
                    return pool.lease(Deadline(budget_s, self.clock))
                except PomagentError as error:
                    if not isinstance(error, PoolClosed) or pool is self.pool:
                        return error

        client = gevent.spawn(ask)
        self.clients.append(client)
        settle()
        return client

    def succeed(self, index: int = 0) -> FakeTunnel:
        """Let a pending dial succeed."""
        tunnel = self.opener.pending[index].succeed()
        settle()
        return tunnel

    def fail(self, error: Exception = DOWN, index: int = 0) -> None:
        """Let a pending dial fail."""
        self.opener.pending[index].fail(error)
        settle()

    def pass_time(self, seconds: float) -> None:
        """Advance the clock, and wake the housekeepers as their timers would."""
        self.clock.advance(seconds)
        self.wake(self.pool)
        if self.reserve.warm_count:
            self.wake(self.reserve_pool)
        settle()

    def wake(self, pool: Pool) -> None:
        """Wake a pool's housekeeper."""
        pool._state.wakeup.ring()

    @property
    def tunnels(self) -> list[FakeTunnel]:
        """All tunnels that were ever dialled."""
        return self.opener.tunnels + self.reserve_opener.tunnels

    def warm(self) -> list[FakeTunnel]:
        """Return what is warm in the route's own pool."""
        return [tunnel for tunnel in self.tunnels if tunnel.is_watched and tunnel not in self.in_reserve()]

    def in_reserve(self) -> list[FakeTunnel]:
        """Return what is warm in the gateway's reserve."""
        if not self.reserve.warm_count:
            return []
        return self.reserve_pool._state.warm._secured.tunnels()  # type: ignore[return-value]  # fake tunnels

    def close(self) -> None:
        self.pool.close(Reason.DRAINED)
        self.gateway_health.close()
        gevent.killall(self.clients)
        settle()
