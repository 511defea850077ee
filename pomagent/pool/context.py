"""What every part of one route's pool shares."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from pomagent.gateway.health import GatewayHealth
from pomagent.log.logger import Logger
from pomagent.pool.backoff import Dice
from pomagent.pool.history import RouteHistory
from pomagent.runtime.deadline import Clock
from pomagent.runtime.greenlets import GreenletReuse
from pomagent.settings import Route


@dataclass(frozen=True, slots=True)
class PoolContext:
    """The route, what is known of it and of its gateway, and the means to act: log, greenlets, clock and dice."""

    route: Route
    history: RouteHistory
    gateway_health: GatewayHealth
    log: Logger
    greenlets: GreenletReuse
    """Run the dials."""
    clock: Clock = time.monotonic
    dice: Dice = random.uniform
