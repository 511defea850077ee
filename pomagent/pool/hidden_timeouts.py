"""Finds the limit that somebody on the way hides: tunnels keep ending at the same age or idle time. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

Kind = Literal["idle", "age"]

TIMES = 6
"""In a row, of the same length: chance does not do that."""
LEAST_S = 5.0
"""Shorter ones do not count: what ends at once, or just after its last byte, has another cause."""
ALIKE = 0.03
"""Of a length, or ``ALIKE_S``: an edge closes up to a second late."""
ALIKE_S = 1.5


@dataclass(frozen=True, slots=True)
class Period:
    """What was found."""

    kind: Kind
    seconds: float
    times: int = TIMES

    def __str__(self) -> str:
        if self.kind == "idle":
            remedy = "the route's idle_timeout at the gateway, the server's own, or a balancer's?"
            return f"ended after {self.seconds:.0f} s idle {self.times} times in a row: {remedy}"
        remedy = "the gateway's timeout_write, or a limit of the server?"
        return f"ended at the age of {self.seconds:.0f} s {self.times} times in a row: {remedy}"


class Periods:
    """The last ends of one route that the other side caused."""

    def __init__(self) -> None:
        self._ends: dict[str, deque[float]] = {"idle": deque(maxlen=TIMES), "age": deque(maxlen=TIMES)}
        self.found: Period | None = None
        """The last one that was named."""

    def note(self, idle_s: float, age_s: float) -> Period | None:
        """A tunnel was ended so long after its last byte, at this age; a period if that makes one which is new."""
        for kind, seconds in (("idle", idle_s), ("age", age_s)):
            if seconds >= LEAST_S:
                self._ends[kind].append(seconds)
        period = self._period("idle") or self._period("age")
        if period is None or (self.found is not None and _is_same(self.found, period)):
            return None
        self.found = period
        return period

    def _period(self, kind: Kind) -> Period | None:
        ends = self._ends[kind]
        if len(ends) < TIMES or not _are_alike(min(ends), max(ends)):
            return None
        return Period(kind, sum(ends) / len(ends))


def _is_same(one: Period, other: Period) -> bool:
    return one.kind == other.kind and _are_alike(*sorted((one.seconds, other.seconds)))


def _are_alike(shorter: float, longer: float) -> bool:
    return longer - shorter <= max(ALIKE_S, ALIKE * longer)
