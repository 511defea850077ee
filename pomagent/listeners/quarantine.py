"""Routes whose address was not to be had at the start: each is tried again until it is free or the route is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from gevent.event import Event
from gevent.pool import Group

from pomagent.errors import BindError
from pomagent.listeners.listeners import Listeners
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.settings import Route

REBIND_FIRST_S, REBIND_MAX_S = 1.0, 30.0
"""Between two tries."""


class Quarantine:
    """Who is in it, and why; the rest of the agent serves meanwhile."""

    def __init__(
        self, listeners: Listeners, routes: Callable[[], Iterable[Route]], release: Callable[[Route], None],
        name_holders: Callable[[dict[str, BindError]], None], log: Logger,
    ) -> None:  # fmt: skip
        """``routes`` are all that should listen; ``release`` gets one whose listener is there now.

        ``name_holders`` says in each error who has the address, and blocks.
        """
        self._listeners = listeners
        self._routes = routes
        self._release = release
        self._name_holders = name_holders
        self._log = log
        self._why: dict[str, str] = {}
        self._again: dict[str, Event] = {}
        self._group = Group()

    @property
    def why(self) -> Mapping[str, str]:
        """By the route's name."""
        return self._why

    def keep(self, names: set[str], failures: Mapping[str, BindError]) -> None:
        """Forget all but ``names``, and take in those that have just failed. Does not block."""
        self._why = {name: why for name, why in self._why.items() if name in names}
        for name in set(self._again) - names:
            self.retry(name)  # to find out that it is over
        for name, error in failures.items():
            self._why[name] = str(error)
            self._again[name] = Event()
            self._log.error(events.ROUTE_QUARANTINED, route=name, problems=[str(error)])
            self._group.spawn(self._rebind, name, self._again[name]).name = f"quarantined route {name}"

    def retry(self, name: str) -> None:
        """Try this one at once, if it is here. Does not block."""
        if name in self._again:
            self._again[name].set()

    def close(self) -> None:
        """Nobody is to be bound any more. Does not block."""
        self._why.clear()
        self._group.kill(block=False)

    def _rebind(self, name: str, again: Event) -> None:
        pause_s = REBIND_FIRST_S
        while name in self._why:
            again.wait(pause_s)
            again.clear()
            pause_s = min(REBIND_MAX_S, pause_s * 2)
            routes = list(self._routes())
            route = next((route for route in routes if route.name == name), None)
            if route is None or name not in self._why:
                break
            prepared = self._listeners.prepare([route], all_routes=routes)
            if name not in prepared.failures:
                self._listeners.take(prepared)
                del self._why[name]
                self._release(route)
                break
            self._name_holders(prepared.failures)
            if name not in self._why:
                break
            self._why[name] = str(prepared.failures[name])
            self._log.error(
                events.LISTENER_BIND_FAILED, route=name, listen=str(route.listen), error=self._why[name],
                retry_in_ms=round(pause_s * 1000),
            )  # fmt: skip
        if self._again.get(name) is again:
            del self._again[name]
