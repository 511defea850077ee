"""The shared reserves of all gateways: each is made when the first route decays, and goes with its gateway."""

from __future__ import annotations

import time
from collections.abc import Collection

from pomagent.gateway.gateways import Gateways
from pomagent.log.logger import Logger
from pomagent.pool.context import PoolContext
from pomagent.pool.history import RouteHistory
from pomagent.pool.pool import Pool
from pomagent.pool.shared_reserve import MAX_KEPT, Reserve
from pomagent.runtime.deadline import Clock
from pomagent.runtime.greenlets import GreenletReuse
from pomagent.settings import Gateway, Route


class Reserves:
    """One reserve for each gateway, shared by all of its unused routes."""

    def __init__(
        self, gateways: Gateways, log: Logger, greenlets: GreenletReuse, clock: Clock = time.monotonic
    ) -> None:
        self._gateways = gateways
        self._log = log
        self._greenlets = greenlets
        self._clock = clock
        self._by_gateway: dict[Gateway, Reserve] = {}

    def of(self, gateway: Gateway) -> Reserve:
        """Return the reserve that all unused routes of a gateway share."""
        if gateway not in self._by_gateway:
            self._by_gateway[gateway] = Reserve(lambda: self._make_pool(gateway))
        return self._by_gateway[gateway]

    def keep_only(self, gateways: Collection[Gateway]) -> None:
        """Forget the reserves of every other gateway. Does not block."""
        self._by_gateway = {gateway: kept for gateway, kept in self._by_gateway.items() if gateway in gateways}

    def retry(self, gateways: Collection[Gateway]) -> None:
        """Forget the delays after failures. Does not block."""
        for gateway in gateways:
            if gateway in self._by_gateway:
                self._by_gateway[gateway].retry()

    def _make_pool(self, gateway: Gateway) -> Pool:
        name, log = f"reserve of {gateway.name}", self._log.bind(gateway=gateway.name)
        route = Route(
            name, gateway.address, gateway.address, gateway, warm="tls", pool_min=0, pool_max=MAX_KEPT, pool_decay_s=0.0
        )
        history = RouteHistory(route, log, self._clock)
        context = PoolContext(route, history, self._gateways.health_of(gateway), log, self._greenlets, self._clock)
        return Pool(context, self._gateways.opener(route, log))
