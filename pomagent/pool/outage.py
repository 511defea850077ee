"""Decides how long a route that has just served holds new clients while its dials fail. Pure.

A gateway that restarts is back within seconds. Clients that would be refused meanwhile wait for the shared dials.
"""

from __future__ import annotations

import math

SERVED_WITHIN_S = 60.0
"""Maximum seconds between the last proof that a route served and its first failed dial, for its clients to be held. A
route that failed before it was used is more likely misconfigured than restarting."""


class Outage:
    """When one route served last, and since when its dials fail."""

    def __init__(self) -> None:
        self._served_at = -math.inf
        self._failing_since: float | None = None

    def hold_until(self, hold_s: float) -> float:
        """Return until when clients are held, 0 while no dial fails or if none are to be held."""
        if self._failing_since is None or self._failing_since - self._served_at > SERVED_WITHIN_S:
            return 0.0
        return self._failing_since + hold_s

    def succeeded(self, now: float) -> None:
        """Account for a CONNECT that the gateway accepted."""
        self._served_at, self._failing_since = now, None

    def was_alive(self, now: float) -> None:
        """Account for a tunnel, warm or in use, that lived until now. It proves nothing after a verdict."""
        if self._served_at > -math.inf:
            self._served_at = now

    def failed(self, now: float, *, may_pass: bool) -> None:
        """Account for a failed dial. One that waiting cannot mend ends the hold until a dial succeeds."""
        if self._failing_since is None:
            self._failing_since = now
        if not may_pass:
            self._served_at = -math.inf

    def forget_failures(self) -> None:
        """Begin a new hold with the next failure: something has changed that may cure it."""
        self._failing_since = None
