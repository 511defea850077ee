"""All listening sockets of the agent, by address, so that routes may swap addresses without refusing a client."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from gevent.event import Event

from pomagent.errors import BindError
from pomagent.listeners.fd_store import FdStore
from pomagent.listeners.inherited import Inherited
from pomagent.listeners.listener import Listener
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.settings import ListenAddress, ListenKey, Route, UnixAddress, listen_key


@dataclass(slots=True)
class Prepared:
    """Listeners for a change of settings, ready for ``commit`` or ``rollback``."""

    bound: dict[ListenKey, Listener] = field(default_factory=dict)
    old_permissions: list[tuple[Listener, UnixAddress]] = field(default_factory=list)
    """Listeners that got new permissions, each with its old ones."""
    failures: dict[str, BindError] = field(default_factory=dict)
    """Errors by the route's name."""


class Listeners:
    """One listener per address. The caller decides which route gets its connections."""

    def __init__(self, store: FdStore, log: Logger) -> None:
        self._store = store
        self._log = log
        self._by_key: dict[ListenKey, Listener] = {}
        self._lost: set[ListenKey] = set()
        """Addresses whose lost file has been logged."""
        self.accepting = Event()
        """All listeners accept while it is set."""
        self.accepting.set()

    def of(self, route: Route) -> Listener | None:
        return self._by_key.get(listen_key(route))

    def prepare(self, routes: Iterable[Route], *, all_routes: Iterable[Route]) -> Prepared:
        """Bind the addresses that ``routes`` lack. Change nothing else but permissions, which ``rollback`` restores.

        ``all_routes`` will be served afterwards: a new address may overlap with listeners of other routes only.
        """
        prepared = Prepared()
        leaving = self._unused(all_routes)
        for route in routes:
            try:
                self._prepare(route, prepared, leaving)
            except BindError as error:
                prepared.failures[route.name] = error
        return prepared

    def rollback(self, prepared: Prepared) -> None:
        """Close what ``prepare`` has bound and restore permissions."""
        for listener in prepared.bound.values():
            listener.close()
        for listener, address in prepared.old_permissions:
            with suppress(BindError):  # the change has failed as well: its file is gone, or another user's
                listener.set_permissions(address)

    def commit(self, prepared: Prepared) -> None:
        """Adopt the prepared listeners. Does not block."""
        self._by_key |= prepared.bound
        for key, listener in prepared.bound.items():
            self._store.keep(key, listener)

    def close_unused(self, routes: Iterable[Route]) -> None:
        """Close the listeners that none of ``routes`` uses, for good. Blocks for a moment."""
        used = {listen_key(route) for route in routes}
        for key in [key for key in self._by_key if key not in used]:
            self._by_key[key].close()
            self._store.forget(key, self._by_key[key])
            del self._by_key[key]  # last: if this greenlet is killed before, the next call finishes the work

    def stop(self, *, to_successor: bool = False) -> None:
        """Stop listening as this process exits. Its successor or systemd keeps the sockets. Blocks."""
        for key in list(self._by_key):
            keep_socket = to_successor or self._store.may_keep
            self._by_key[key].stop(keep_socket=keep_socket, serve_waiting=not to_successor)
            del self._by_key[key]

    def inheritable(self) -> list[Inherited]:
        """Return all sockets for a successor of this process."""
        return [listener.inheritable(key) for key, listener in self._by_key.items()]

    def restore_permissions(self) -> None:
        """Set the permissions of Unix sockets again, because another process with our sockets may have changed them."""
        for listener in self._by_key.values():
            if isinstance(listener.requested, UnixAddress):
                with suppress(BindError):  # as in ``rollback``
                    listener.set_permissions(listener.requested)

    def mend(self, route: Route) -> str:
        """Bind a Unix address again if the file of its socket was lost. Blocks for a moment.

        Returns why clients cannot reach the route, or an empty string. A file of another program at the path stays, and
        the next call tries again.
        """
        key, listener = listen_key(route), self.of(route)
        lost = listener.lost_file if listener is not None and self.accepting.is_set() else ""
        if listener is None or listener.accept is None or not lost:
            self._lost.discard(key)
            return ""
        if key not in self._lost:
            self._lost.add(key)
            self._log.warning(events.LISTENER_LOST, route=route.name, listen=str(route.listen), error=lost)
        if listener.is_from_unit:
            return f"restart the .socket unit of {route.listen}: {lost}"
        try:
            successor = Listener(route.listen, self._log, accepting=self.accepting)
        except BindError as error:
            return f"{error} ({lost})"
        successor.deliver_to(route.name, listener.accept)
        self._by_key[key] = successor
        self._lost.discard(key)
        self._store.forget(key, listener)
        self._store.keep(key, successor)
        listener.close()
        return ""

    def find_stuck(self) -> list[Listener]:
        """Return the listeners that leave clients waiting although they may accept. Takes one system call for all."""
        if not self.accepting.is_set():
            return []
        by_fd = {listener.sock.fileno(): listener for listener in self._by_key.values()}
        poll = select.poll()
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        readable = {fd for fd, _ in poll.poll(0)}
        return [listener for fd, listener in by_fd.items() if listener.is_stuck(has_waiting=fd in readable)]

    def _prepare(self, route: Route, prepared: Prepared, leaving: list[socket.socket]) -> None:
        key = listen_key(route)
        listener = self._by_key.get(key)
        if listener is None:
            prepared.bound[key] = self._listen(key, route.listen, leaving)
        elif isinstance(route.listen, UnixAddress) and listener.requested != route.listen:
            assert isinstance(listener.requested, UnixAddress)
            prepared.old_permissions.append((listener, listener.requested))
            listener.set_permissions(route.listen)

    def _listen(self, key: ListenKey, listen: ListenAddress, leaving: list[socket.socket]) -> Listener:
        """Listen on the inherited socket of the address, or bind one. Raises BindError."""
        inherited = self._store.claim(key, listen)
        try:
            may_overlap = leaving + [other.sock for other in self._store.unclaimed]
            return Listener(listen, self._log, may_overlap, inherited, self.accepting)
        except BindError:
            if inherited is not None:
                self._store.unclaim(inherited)
            raise

    def _unused(self, routes: Iterable[Route]) -> list[socket.socket]:
        used = {listen_key(route) for route in routes}
        return [listener.sock for key, listener in self._by_key.items() if key not in used]
