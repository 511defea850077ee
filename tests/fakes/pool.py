"""A pool with everything around it in the hands of the test: dials, tunnels, time and chance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gevent

from pomagent.errors import GatewayUnreachable, PomagentError, PoolClosed, RouteForbidden
from pomagent.gateway.health import GatewayHealth
from pomagent.pool import Pool, RouteHistory
from pomagent.pool.shared_reserve import MOST, Reserve
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
    """A pool with everything around it in the hands of the test."""

    def __init__(self, route: Route, held: frozenset[str]) -> None:
        self.clock = FakeClock()
        self.dice = FakeDice(1.0)
        self.opener = FakeOpener(self.clock, held)
        self.fake_log = FakeLog()
        self.memory = RouteHistory(route, self.clock())
        self.gateway = GatewayHealth("edge.example.com:443", self.fake_log.log, self.clock)
        self.route = route
        self.reserve_opener = FakeOpener(self.clock, frozenset())
        self.reserve = Reserve(self._make_reserve)
        self.pool = self._make_pool()
        self.clients: list[gevent.Greenlet] = []

    def _make_pool(self) -> Pool:
        return Pool(
            self.route, self.opener, self.memory, self.gateway, self.fake_log.log,  # type: ignore[arg-type]
            GREENLETS, self.reserve, clock=self.clock, dice=self.dice,
        )  # fmt: skip

    def _make_reserve(self) -> Pool:
        route = replace(self.route, name="reserve", warm="tls", pool_min=0, pool_max=MOST, pool_decay_s=0.0)
        self.reserve_pool = Pool(
            route, self.reserve_opener, RouteHistory(route, self.clock()), self.gateway, self.fake_log.log,  # type: ignore[arg-type]
            GREENLETS, clock=self.clock, dice=self.dice,
        )  # fmt: skip
        return self.reserve_pool

    def reconfigure(self, **changes: Any) -> None:
        """Go on under changed settings, as a forwarder does: another pool, the same memory."""
        self.route = replace(self.route, **changes)
        self.memory.follow(self.route, self.clock())
        old, self.pool = self.pool, self._make_pool()
        self.pool.start()
        old.close(Reason.STALE)
        settle()

    @property
    def pending(self) -> int:
        return len(self.opener.pending)

    def start(self) -> Scene:
        self.pool.start()
        settle()
        return self

    def filled(self) -> Scene:
        """Started, and warm up to the target."""
        if not self.opener.dials:
            self.start()
        while self.opener.pending:
            self.succeed()
        return self

    def client(self, budget_s: float = 3600.0) -> gevent.Greenlet:
        """A client that asks for a tunnel; its value is the tunnel, or the error."""

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
        tunnel = self.opener.pending[index].succeed()
        settle()
        return tunnel

    def fail(self, error: Exception = DOWN, index: int = 0) -> None:
        self.opener.pending[index].fail(error)
        settle()

    def pass_time(self, seconds: float) -> None:
        """Move the clock, and bring the keeper's timer forward accordingly."""
        self.clock.advance(seconds)
        self.pool._keeper.look()
        if self.reserve.warm_count:
            self.reserve_pool._keeper.look()
        settle()

    @property
    def tunnels(self) -> list[FakeTunnel]:
        """All that ever were."""
        return self.opener.tunnels + self.reserve_opener.tunnels

    def warm(self) -> list[FakeTunnel]:
        """What waits in the route's own pool."""
        return [tunnel for tunnel in self.tunnels if tunnel.is_watched and tunnel not in self.in_reserve()]

    def in_reserve(self) -> list[FakeTunnel]:
        """What waits for any unused route of the gateway."""
        stock = self.reserve_pool._shelf._secured._warm if self.reserve.warm_count else {}
        return [warm.tunnel for warm in stock.values()]  # type: ignore[misc]

    def close(self) -> None:
        self.pool.close(Reason.DRAINED)
        self.gateway.close()
        gevent.killall(self.clients)
        settle()
