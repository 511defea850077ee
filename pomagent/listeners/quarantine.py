"""Retries routes after their listen address could not be bound, until the address is free or the route is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from gevent.event import Event
from gevent.pool import Group

from pomagent.errors import BindError
from pomagent.listeners.listeners import Listeners
from pomagent.listeners.rebinding import keep_binding
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.settings import Route


class Quarantine:
    """Routes without a listener, and the reason of each. The rest of the agent serves meanwhile."""

    def __init__(
        self, listeners: Listeners, routes: Callable[[], Iterable[Route]], release: Callable[[Route], None],
        name_owners: Callable[[dict[str, BindError]], None], log: Logger,
    ) -> None:  # fmt: skip
        """``routes`` returns all routes that should listen. ``release`` gets a route once it has its listener.

        ``name_owners`` adds to each error the process that has the address. It blocks.
        """
        self._listeners = listeners
        self._routes = routes
        self._release = release
        self._name_owners = name_owners
        self._log = log
        self._reasons: dict[str, str] = {}
        self._retry_now: dict[str, Event] = {}
        self._group = Group()

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why each route is quarantined, by the route's name."""
        return self._reasons

    def update(self, names: set[str], failures: Mapping[str, BindError]) -> None:
        """Keep only the routes in ``names``, and add those that have just failed. Does not block."""
        self._reasons = {name: reason for name, reason in self._reasons.items() if name in names}
        for name in set(self._retry_now) - names:
            self.retry(name)  # wakes the greenlet, which then ends
        for name, error in failures.items():
            self._reasons[name] = str(error)
            self._retry_now[name] = Event()
            self._log.error(events.ROUTE_QUARANTINED, route=name, problems=[str(error)])
            self._group.spawn(self._rebind, name, self._retry_now[name]).name = f"quarantined route {name}"

    def retry(self, name: str) -> None:
        """Retry a route at once if it is quarantined. Does not block."""
        if name in self._retry_now:
            self._retry_now[name].set()

    def close(self) -> None:
        """Stop all retries. Does not block."""
        self._reasons.clear()
        self._group.kill(block=False)

    def _rebind(self, name: str, retry_now: Event) -> None:
        def wait(pause_s: float) -> None:
            retry_now.wait(pause_s)
            retry_now.clear()

        keep_binding(lambda next_pause_s: self._attempt(name, next_pause_s), wait)
        if self._retry_now.get(name) is retry_now:
            del self._retry_now[name]

    def _attempt(self, name: str, pause_s: float) -> bool:
        """Try to bind a route once and return whether to go on. Blocks."""
        routes = list(self._routes())
        route = next((route for route in routes if route.name == name), None)
        if route is None or name not in self._reasons:
            return False
        prepared = self._listeners.prepare([route], all_routes=routes)
        if name not in prepared.failures:
            self._listeners.commit(prepared)
            del self._reasons[name]
            self._release(route)
            return False
        self._name_owners(prepared.failures)
        if name not in self._reasons:
            return False
        self._reasons[name] = str(prepared.failures[name])
        self._log.error(
            events.LISTENER_BIND_FAILED, route=name, listen=str(route.listen), error=self._reasons[name],
            retry_in_ms=round(pause_s * 1000),
        )  # fmt: skip
        return True
