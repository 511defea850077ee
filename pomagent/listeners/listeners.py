"""All listening sockets of the agent, by address: so that routes may swap addresses and nobody is refused."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from gevent.event import Event

from pomagent.errors import BindError
from pomagent.listeners.fd_store import SocketStore
from pomagent.listeners.inherited import Inherited
from pomagent.listeners.listener import Listener
from pomagent.log.logger import Logger
from pomagent.settings import ListenAddress, ListenKey, Route, UnixAddress, listen_key


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

    def __init__(self, store: SocketStore, log: Logger) -> None:
        self._store = store
        self._log = log
        self._by_key: dict[ListenKey, Listener] = {}
        self.gate = Event()
        """While it is set, all accept."""
        self.gate.set()

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
        for key, listener in prepared.fresh.items():
            self._store.keep(key, listener)

    def close_unused(self, routes: Iterable[Route]) -> None:
        """Close what none of ``routes`` uses, for good. Blocks for a moment."""
        used = {listen_key(route) for route in routes}
        for key in [key for key in self._by_key if key not in used]:
            self._by_key[key].close()
            self._store.forget(key, self._by_key[key])
            del self._by_key[key]  # only now: whoever is killed meanwhile leaves it to the next one

    def leave(self, *, to_successor: bool = False) -> None:
        """Stop listening at the end of this process: its successor has the sockets, or systemd keeps them. Blocks."""
        for key in list(self._by_key):
            to_next = to_successor or self._store.may_keep
            self._by_key[key].leave(to_next=to_next, serve_waiting=not to_successor)
            del self._by_key[key]

    def shared(self) -> list[Inherited]:
        """All of them, for a successor of this process."""
        return [listener.shared(key) for key, listener in self._by_key.items()]

    def permit_again(self) -> None:
        """Give Unix sockets the permissions that we want: another process with our sockets may have changed them."""
        for listener in self._by_key.values():
            if isinstance(listener.asked, UnixAddress):
                with suppress(BindError):  # as in ``undo``
                    listener.permit(listener.asked)

    def find_stuck(self) -> list[Listener]:
        """Those that do not accept although somebody waits and they may. Asks the kernel once for all."""
        if not self.gate.is_set():
            return []
        by_fd = {listener.sock.fileno(): listener for listener in self._by_key.values()}
        poll = select.poll()
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        waited_for = {fd for fd, _ in poll.poll(0)}
        return [listener for fd, listener in by_fd.items() if listener.is_stuck(somebody_waits=fd in waited_for)]

    def _prepare(self, route: Route, prepared: Prepared, leaving: list[socket.socket]) -> None:
        key = listen_key(route)
        listener = self._by_key.get(key)
        if listener is None:
            prepared.fresh[key] = self._listen(key, route.listen, leaving)
        elif isinstance(route.listen, UnixAddress) and listener.asked != route.listen:
            assert isinstance(listener.asked, UnixAddress)
            prepared.permitted.append((listener, listener.asked))
            listener.permit(route.listen)

    def _listen(self, key: ListenKey, listen: ListenAddress, leaving: list[socket.socket]) -> Listener:
        """On the socket that this process was handed for the address, if it was. Raises BindError."""
        inherited = self._store.claim(key, listen)
        try:
            leaving = leaving + [other.sock for other in self._store.unclaimed]
            return Listener(listen, self._log, leaving, inherited, self.gate)
        except BindError:
            if inherited is not None:
                self._store.give_back(inherited)
            raise

    def _unused(self, routes: Iterable[Route]) -> list[socket.socket]:
        used = {listen_key(route) for route in routes}
        return [listener.sock for key, listener in self._by_key.items() if key not in used]
