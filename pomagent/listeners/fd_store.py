"""Listening sockets that outlive the process: those it was handed, and those systemd keeps for the next one.

So a restart refuses nobody: what connects meanwhile waits in the backlog of a socket that systemd holds. The other side
of it: a socket that nobody accepts from any more must leave the store, or its port turns into a black hole.
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

NOTHING_NAMED: Final = "no stream socket that listens"


class SocketStore:
    """What systemd holds for us, as far as this process has a say in it. Nothing here blocks."""

    def __init__(self, notifier: Notifier, inherited: Iterable[Inherited], log: Logger) -> None:
        self._notifier = notifier
        self._log = log
        self._unclaimed = list(inherited)

    @property
    def may_keep(self) -> bool:
        """Whether somebody may hold what we close: systemd never says if it does."""
        return self._notifier.is_heard

    @property
    def unclaimed(self) -> list[Inherited]:
        """What no route has asked for yet."""
        return list(self._unclaimed)

    def claim(self, key: ListenKey, listen: ListenAddress) -> Inherited | None:
        """The inherited socket of an address, once; with port 0, the one that the same route had."""
        by_name = isinstance(listen, HostPort) and listen.port == 0
        for inherited in self._unclaimed:
            if inherited.name == store_name(key) if by_name else inherited.leads_to(listen):
                self._unclaimed.remove(inherited)
                return inherited
        return None

    def give_back(self, inherited: Inherited) -> None:
        """It was of no use after all: whatever becomes of it is decided with the rest."""
        self._unclaimed.append(inherited)

    def keep(self, key: ListenKey, listener: Listener) -> None:
        """Let the next process have a listener's socket, unless that comes from a ``.socket`` unit anyway."""
        name, inherited = store_name(key), listener.inherited
        if inherited is not None and (inherited.is_units or inherited.name == name):
            return  # systemd has it already
        if inherited is not None:
            self._notifier.forget(inherited.name)
        for useless in [other for other in self._unclaimed if other.name == name]:
            self._discard(useless)  # first: a name is forgotten with all that is stored under it
        self._notifier.store(name, listener.sock)

    def forget(self, key: ListenKey, listener: Listener) -> None:
        """The address is given up: nobody is to wait there for a process that never comes."""
        if listener.is_units:
            self._warn(str(listener.address))
        else:
            self._notifier.forget(store_name(key))

    def settle(self) -> None:
        """All routes have claimed what is theirs: close the rest, for good where that is ours to decide."""
        for inherited in self.unclaimed:
            self._discard(inherited)

    def _discard(self, inherited: Inherited) -> None:
        self._unclaimed.remove(inherited)
        if inherited.is_units:
            self._warn(inherited.address or NOTHING_NAMED)
            inherited.sock.close()
        else:
            self._notifier.forget(inherited.name)
            Listener.end(inherited.sock)

    def _warn(self, address: str) -> None:
        self._log.warning(
            events.LISTENER_UNWANTED, listen=address,
            error="a .socket unit listens there for no route; stop that unit, or add a route with this address",
        )  # fmt: skip
