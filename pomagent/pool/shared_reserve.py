"""TLS connections that all unused routes of one gateway share: without a CONNECT, each fits any of these routes.

A connection for each unused route would have to be replaced every few minutes for ever, a thousand times over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pomagent.errors import TunnelError
from pomagent.gateway.tunnel import Tunnel
from pomagent.protocol.lifecycle import Reason

MIN_KEPT = 4
"""Connections to keep, or one per unused route if there are fewer: clients rarely return to more routes together."""
MAX_KEPT = 16
"""Maximum connections to keep when clients return often: a few routes of an unused thousand return together."""


class ReservePool(Protocol):
    """Holds the connections of a reserve: a ``Pool`` of level ``tls``."""

    @property
    def warm_count(self) -> int: ...
    @property
    def last_error(self) -> TunnelError | None: ...
    def start(self) -> None: ...
    def keep_at_least(self, count: int) -> None: ...
    def take_secured(self) -> Tunnel | None: ...
    def close(self, reason: Reason) -> None: ...
    def retry_now(self) -> None: ...


class Reserve:
    """Keeps connections while routes are unused: as many as their number, and the use they make of it, ask for."""

    def __init__(self, make_pool: Callable[[], ReservePool]) -> None:
        self._make_pool = make_pool
        self._pool: ReservePool | None = None
        self._routes: set[object] = set()

    @property
    def warm_count(self) -> int:
        """Connections that are ready to be taken."""
        return self._pool.warm_count if self._pool else 0

    @property
    def last_error(self) -> TunnelError | None:
        """The failure of the reserve's last dial, None after a success."""
        return self._pool.last_error if self._pool else None

    def join(self, route: object) -> None:
        """Serve a route that is no longer used. Does not block."""
        if route in self._routes:
            return
        self._routes.add(route)
        if self._pool is None:
            self._pool = self._make_pool()
            self._pool.start()
        self._resize(self._pool)

    def leave(self, route: object) -> None:
        """Serve a route no more: it is in use again, or was removed. Does not block."""
        if self._pool is None or route not in self._routes:
            return
        self._routes.discard(route)
        if self._routes:
            self._resize(self._pool)
        else:
            self._pool.close(Reason.UNWANTED)
            self._pool = None

    def retry(self) -> None:
        """Forget the delays after failures. Does not block."""
        if self._pool is not None:
            self._pool.retry_now()

    def take(self) -> Tunnel | None:
        """Remove and return the oldest connection that is alive: one for each route that comes into use again."""
        return self._pool.take_secured() if self._pool else None

    def _resize(self, pool: ReservePool) -> None:
        pool.keep_at_least(min(MIN_KEPT, len(self._routes)))
