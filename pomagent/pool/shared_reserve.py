"""TLS connections that all unused routes of one gateway have in common: without a CONNECT each fits any of them.

A connection of its own for each would be replaced every few minutes for ever, a thousand times over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pomagent.errors import TunnelError
from pomagent.gateway.tunnel import Tunnel

FEWEST = 4
"""Kept while there are as many unused routes; applications that wake them together are rare."""
MOST = 16
"""Kept after more than that: a few routes of an unused thousand come back together."""


class Stocked(Protocol):
    """What a reserve keeps its connections in: a ``Pool`` of level ``tls``."""

    @property
    def warm_count(self) -> int: ...
    @property
    def last_error(self) -> TunnelError | None: ...
    def start(self) -> None: ...
    def keep(self, minimum: int) -> None: ...
    def take_secured(self) -> Tunnel | None: ...
    def empty(self) -> None: ...
    def retry_now(self) -> None: ...


class Reserve:
    """Follows the number of unused routes, and how often they come back; none keeps none."""

    def __init__(self, make_pool: Callable[[], Stocked]) -> None:
        self._make_pool = make_pool
        self._pool: Stocked | None = None
        self._routes: set[object] = set()

    @property
    def warm_count(self) -> int:
        """How many connections wait."""
        return self._pool.warm_count if self._pool else 0

    @property
    def last_error(self) -> TunnelError | None:
        """Of its last dial, None after one that succeeded."""
        return self._pool.last_error if self._pool else None

    def join(self, route: object) -> None:
        """Nobody uses this route any more. Does not block."""
        if route in self._routes:
            return
        self._routes.add(route)
        if self._pool is None:
            self._pool = self._make_pool()
            self._pool.start()
        self._keep(self._pool)

    def leave(self, route: object) -> None:
        """Somebody does, or it goes. Does not block."""
        if self._pool is None or route not in self._routes:
            return
        self._routes.discard(route)
        if self._routes:
            self._keep(self._pool)
        else:
            self._pool.empty()
            self._pool = None

    def retry(self) -> None:
        """Forget the waits after failures. Does not block."""
        if self._pool is not None:
            self._pool.retry_now()

    def take(self) -> Tunnel | None:
        """The oldest connection that is alive, for a route that wakes: one for each, so that none takes all."""
        return self._pool.take_secured() if self._pool else None

    def _keep(self, pool: Stocked) -> None:
        pool.keep(min(FEWEST, len(self._routes)))
