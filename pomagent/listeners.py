"""All listening sockets of the agent, by address: so that routes may swap addresses and nobody is refused."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from pomagent.errors import BindError
from pomagent.listener import Listener
from pomagent.log import Logger
from pomagent.plan import ListenKey, listen_key
from pomagent.settings import Route, UnixAddress


@dataclass(slots=True)
class Prepared:
    """What a change of settings needs, ready to be taken or to be undone."""

    fresh: dict[ListenKey, Listener] = field(default_factory=dict)
    permitted: list[tuple[Listener, UnixAddress]] = field(default_factory=list)
    """Listeners with new permissions, and their old ones."""
    failures: dict[str, BindError] = field(default_factory=dict)
    """Why, by the route's name."""


class Listeners:
    """One listener per address; whose connections it brings is decided elsewhere."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._by_key: dict[ListenKey, Listener] = {}

    def of(self, route: Route) -> Listener | None:
        return self._by_key.get(listen_key(route))

    def prepare(self, routes: Iterable[Route], *, all_routes: Iterable[Route]) -> Prepared:
        """Bind what ``routes`` lack. Nothing of what listens changes but permissions, which ``undo`` puts back.

        ``all_routes`` are those that will be served afterwards: listeners of no other route may be overlapped.
        """
        prepared = Prepared()
        leaving = self._unused(all_routes)
        for route in routes:
            try:
                self._prepare(route, prepared, leaving)
            except BindError as error:
                prepared.failures[route.name] = error
        return prepared

    def undo(self, prepared: Prepared) -> None:
        for listener in prepared.fresh.values():
            listener.close()
        for listener, address in prepared.permitted:
            with suppress(BindError):  # it could not be changed either: its file is gone, or another user's
                listener.permit(address)

    def take(self, prepared: Prepared) -> None:
        """Make what was prepared part of what listens. Does not block."""
        self._by_key |= prepared.fresh

    def close_unused(self, routes: Iterable[Route]) -> None:
        """Close what none of ``routes`` uses. Blocks for a moment."""
        used = {listen_key(route) for route in routes}
        for key in [key for key in self._by_key if key not in used]:
            self._by_key[key].close()
            del self._by_key[key]  # only now: whoever is killed meanwhile leaves it to the next one

    def close(self) -> None:
        """Close everything. Blocks for a moment."""
        self.close_unused(())

    def _prepare(self, route: Route, prepared: Prepared, leaving: list[Listener]) -> None:
        key = listen_key(route)
        listener = self._by_key.get(key)
        if listener is None:
            prepared.fresh[key] = Listener(route.listen, self._log, leaving)
        elif isinstance(route.listen, UnixAddress) and listener.asked != route.listen:
            assert isinstance(listener.asked, UnixAddress)
            prepared.permitted.append((listener, listener.asked))
            listener.permit(route.listen)

    def _unused(self, routes: Iterable[Route]) -> list[Listener]:
        used = {listen_key(route) for route in routes}
        return [listener for key, listener in self._by_key.items() if key not in used]
