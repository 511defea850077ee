"""Listening sockets that outlive the process: inherited ones, and those that systemd stores for the next process.

A restart refuses no client: connections wait in the backlog of a socket that systemd holds. In return, a socket that no
process accepts from any more must leave the store. Otherwise clients connect to its port and wait forever.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pomagent.listeners.inherited import Inherited, store_name
from pomagent.listeners.listener import Listener
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.sd_notify import Notifier
from pomagent.settings import HostPort, ListenAddress, ListenKey

NO_ADDRESS: Final = "no stream socket that listens"
"""The ``listen`` field of an inherited socket that no route could use."""


class FdStore:
    """Systemd's file descriptor store (sd_notify(3)), as seen by this process. Nothing here blocks."""

    def __init__(self, notifier: Notifier, inherited: Iterable[Inherited], log: Logger) -> None:
        self._notifier = notifier
        self._log = log
        self._unclaimed = list(inherited)

    @property
    def may_keep(self) -> bool:
        """Whether systemd may hold the sockets that we close. It never confirms that it does."""
        return self._notifier.is_heard

    @property
    def unclaimed(self) -> list[Inherited]:
        """Inherited sockets that no route has claimed yet."""
        return list(self._unclaimed)

    def claim(self, key: ListenKey, listen: ListenAddress) -> Inherited | None:
        """Return the inherited socket of an address, once. With port 0, the socket that the same route had."""
        by_name = isinstance(listen, HostPort) and listen.port == 0
        for inherited in self._unclaimed:
            if inherited.name == store_name(key) if by_name else inherited.listens_on(listen):
                self._unclaimed.remove(inherited)
                return inherited
        return None

    def unclaim(self, inherited: Inherited) -> None:
        """Return a claimed socket that could not be used. ``discard_unclaimed`` decides about it."""
        self._unclaimed.append(inherited)

    def keep(self, key: ListenKey, listener: Listener) -> None:
        """Store a listener's socket for the next process, unless a ``.socket`` unit provides it anyway."""
        name, inherited = store_name(key), listener.inherited
        if inherited is not None and (inherited.is_from_unit or inherited.name == name):
            return  # systemd has it already
        if inherited is not None:
            self._notifier.forget(inherited.name)
        for useless in [other for other in self._unclaimed if other.name == name]:
            self._discard(useless)  # first: forgetting a name removes every socket stored under it
        self._notifier.store(name, listener.sock)

    def forget(self, key: ListenKey, listener: Listener) -> None:
        """Remove the socket of an address that is given up, so that no client waits for a process that never comes."""
        if listener.is_from_unit:
            self._warn(str(listener.address))
        else:
            self._notifier.forget(store_name(key))

    def discard_unclaimed(self) -> None:
        """Close the sockets that no route has claimed, and remove those from the store that are ours."""
        for inherited in self.unclaimed:
            self._discard(inherited)

    def _discard(self, inherited: Inherited) -> None:
        self._unclaimed.remove(inherited)
        if inherited.is_from_unit:
            self._warn(inherited.address or NO_ADDRESS)
            inherited.sock.close()
        else:
            self._notifier.forget(inherited.name)
            Listener.end(inherited.sock)

    def _warn(self, address: str) -> None:
        self._log.warning(
            events.LISTENER_UNWANTED, listen=address,
            error="stop the .socket unit that listens there, or add a route with this address; clients wait in vain",
        )  # fmt: skip
