"""Host names to addresses, off the hub: one look-up per name at a time, and a stale answer rather than none."""

from __future__ import annotations

import ipaddress
import socket
import time
from dataclasses import dataclass, field
from functools import lru_cache

from gevent import Timeout
from gevent.event import AsyncResult
from gevent.pool import Group

from pomagent.runtime.deadline import Clock
from pomagent.runtime.threads import Threads
from pomagent.settings import HostPort

FRESH_S = 5.0
"""A refill of a whole pool asks once. getaddrinfo tells no TTL, so longer would be a guess."""
THREADS = 4
"""A hanging look-up holds one; names are few."""

Address = tuple[socket.AddressFamily, tuple[str, int]]


@dataclass(slots=True)
class _Known:
    addresses: list[Address] = field(default_factory=list)
    at: float = float("-inf")
    pending: AsyncResult | None = None


class LookupFailed(Exception):
    """The name has no address, or the resolver did not answer in time."""


class Resolver:
    """Look-ups for all gateways of the agent, in threads of their own."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[HostPort, _Known] = {}
        self._threads = Threads(THREADS)
        self._group = Group()

    def resolve(self, target: HostPort, timeout_s: float) -> list[Address]:
        """Every address of ``target``, in the system's order of preference. Blocks. Raises LookupFailed."""
        literal = _literal(target)
        if literal:
            return [literal]
        known = self._known.setdefault(target, _Known())
        if known.addresses and self._clock() - known.at < FRESH_S:
            return known.addresses
        if known.pending is None:
            known.pending = AsyncResult()
            self._group.spawn(self._look_up, target, known, known.pending).name = f"look-up of {target.host}"
        cause = f"not within {timeout_s:g} s"
        with Timeout(timeout_s, False):
            try:
                fresh: list[Address] = known.pending.get()
            except LookupFailed as error:
                cause = str(error)
            else:
                return fresh
        if known.addresses:
            return known.addresses
        raise LookupFailed(f"no address for {target.host}: {cause}")

    def close(self) -> None:
        self._group.kill()

    def _look_up(self, target: HostPort, known: _Known, pending: AsyncResult) -> None:
        cause = "the look-up was broken off"
        try:
            known.addresses = self._threads.call(_getaddrinfo, target)
            known.at = self._clock()
            pending.set(known.addresses)
        except OSError as error:
            cause = error.strerror or str(error)
        except UnicodeError:  # from the encoding of a name that DNS cannot have
            cause = "not a host name"
        finally:  # whatever happened: nobody waits for it any more, and the next one asks anew
            known.pending = None
            if not pending.ready():
                pending.set_exception(LookupFailed(cause))


def _getaddrinfo(target: HostPort) -> list[Address]:
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [(family, sockaddr[:2]) for family, _, _, _, sockaddr in found]  # type: ignore[misc]


@lru_cache(maxsize=256)  # each dial asks; gateways are few
def _literal(target: HostPort) -> Address | None:
    try:
        ip = ipaddress.ip_address(target.host)
    except ValueError:
        return None
    return (socket.AF_INET6 if ip.version == 6 else socket.AF_INET), (target.host, target.port)
