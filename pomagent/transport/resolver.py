"""Resolves host names in threads: one look-up per name at a time, and a stale answer rather than none."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from functools import lru_cache

from pomagent.runtime.deadline import Clock
from pomagent.runtime.single_flight import SingleFlight
from pomagent.runtime.threads import Threads
from pomagent.settings import HostPort

FRESH_S = 5.0
"""Seconds an answer is reused, so that refilling a whole pool looks up once. getaddrinfo reports no TTL."""
THREADS = 4
"""Maximum look-ups at a time. A hanging look-up occupies one, and there are few names."""

Address = tuple[socket.AddressFamily, tuple[str, int]]


class LookupFailed(Exception):
    """The name has no address, or the resolver did not answer in time."""


class Resolver:
    """Resolves the names of all the agent's gateways and proxies."""

    def __init__(
        self, clock: Clock = time.monotonic, look_up: Callable[[HostPort], list[Address]] | None = None
    ) -> None:
        """``look_up`` replaces getaddrinfo. It blocks, and raises OSError or ValueError."""
        threads = Threads(THREADS)
        look_up = look_up or (lambda target: threads.call(getaddrinfo, target))
        self._answers: SingleFlight[HostPort, list[Address]] = SingleFlight(look_up, "look-up of", FRESH_S, clock)

    def resolve(self, target: HostPort, timeout_s: float) -> list[Address]:
        """Return every address of ``target``, in the system's order of preference. Blocks. Raises LookupFailed."""
        literal = _literal(target)
        if literal:
            return [literal]
        answer = self._answers.get(target, timeout_s)
        if answer.value:
            return answer.value
        raise LookupFailed(f"no address for {target.host}: {_cause(answer.error)}")

    def close(self) -> None:
        """End every look-up. Blocks."""
        self._answers.close()


def getaddrinfo(target: HostPort) -> list[Address]:
    """Return what the system resolves ``target`` to. Blocks the thread. Raises OSError, UnicodeError."""
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [(family, sockaddr[:2]) for family, _, _, _, sockaddr in found]  # type: ignore[misc]  # typeshed's union


def _cause(error: Exception | None) -> str:
    if isinstance(error, UnicodeError):  # from encoding a name that DNS cannot contain
        return "not a host name"
    return (isinstance(error, OSError) and error.strerror) or str(error or "an empty answer")


@lru_cache(maxsize=256)  # each dial asks, and there are few gateways
def _literal(target: HostPort) -> Address | None:
    try:
        ip = ipaddress.ip_address(target.host)
    except ValueError:
        return None
    return (socket.AF_INET6 if ip.version == 6 else socket.AF_INET), (target.host, target.port)
