"""Detects undocumented timeouts on the path: tunnels keep being closed at the same age or idle time. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

Kind = Literal["idle", "age"]

TIMES = 6
"""Consecutive closes after the same time that prove a timeout, because chance does not produce them."""
MIN_S = 5.0
"""Seconds below which a close does not count: one that follows the start or the last byte has another cause."""
ALIKE = 0.03
"""Relative difference below which two times are the same. ``ALIKE_S`` applies to short times."""
ALIKE_S = 1.5
"""Seconds of difference below which two times are the same: an edge closes up to a second late."""


@dataclass(frozen=True, slots=True)
class HiddenTimeout:
    """A timeout that was detected."""

    kind: Kind
    seconds: float
    times: int = TIMES

    def __str__(self) -> str:
        if self.kind == "idle":
            remedy = "check the route's idle_timeout at the gateway, and those of the server and of any load balancer"
            return f"{remedy}: {self.times} tunnels in a row were closed after {self.seconds:.0f} s without a byte"
        remedy = "check the gateway's timeout_write, and the server's own limit"
        return f"{remedy}: {self.times} tunnels in a row were closed at the age of {self.seconds:.0f} s"


class HiddenTimeouts:
    """The last tunnels of one route that the other side closed."""

    def __init__(self) -> None:
        self._closes: dict[str, deque[float]] = {"idle": deque(maxlen=TIMES), "age": deque(maxlen=TIMES)}
        self.found: HiddenTimeout | None = None
        """The timeout that was reported last."""

    def note(self, idle_s: float, age_s: float) -> HiddenTimeout | None:
        """Record a close, ``idle_s`` after the last byte, and return the timeout that it proves, if that is new."""
        for kind, seconds in (("idle", idle_s), ("age", age_s)):
            if seconds >= MIN_S:
                self._closes[kind].append(seconds)
        timeout = self._timeout("idle") or self._timeout("age")
        if timeout is None or (self.found is not None and _is_same(self.found, timeout)):
            return None
        self.found = timeout
        return timeout

    def _timeout(self, kind: Kind) -> HiddenTimeout | None:
        closes = self._closes[kind]
        if len(closes) < TIMES or not _are_alike(min(closes), max(closes)):
            return None
        return HiddenTimeout(kind, sum(closes) / len(closes))


def _is_same(one: HiddenTimeout, other: HiddenTimeout) -> bool:
    return one.kind == other.kind and _are_alike(*sorted((one.seconds, other.seconds)))


def _are_alike(shorter: float, longer: float) -> bool:
    return longer - shorter <= max(ALIKE_S, ALIKE * longer)
