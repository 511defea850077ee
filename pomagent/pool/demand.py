"""Computes how many tunnels a route should have warm: as many as its clients are about to need. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

REFILL_DELAY_S = 0.02
"""Minimum seconds between a lease and the refill, so that the refill's handshake does not compete with the client's
first byte (2.1 → 1.4 ms)."""

MAX_REFILL_DELAY_S = 0.25
"""Maximum of that delay, for gateways so far away that half a dial takes longer."""

HOLD_S = 60.0
"""Seconds for which a burst's tunnels are kept warm: bursts recur, and a refill takes longer than a burst lasts."""


class Demand:
    """Recent leases, and how long it takes to replace a tunnel."""

    def __init__(self, minimum: int, maximum: int) -> None:
        self.minimum = minimum
        self.maximum = max(minimum, maximum)
        self._leases: deque[float] = deque(maxlen=max(2, maximum * 2))
        self._peak = 0
        self._peak_at = float("-inf")
        self.dial_s = 0.0
        """How long a dial takes, as a moving average."""
        self.refill_delay_s = REFILL_DELAY_S
        """Seconds between a lease and the refill: half a dial, longer than the round trip of the first byte."""

    def note_lease(self, now: float) -> None:
        """Record that a client asked for a tunnel, whether or not one was warm."""
        self._leases.append(now)
        recent = self._recent(now)
        if recent >= self._peak or now - self._peak_at >= HOLD_S:
            self._peak, self._peak_at = recent, now

    def dial_took(self, seconds: float) -> None:
        """Record how long a dial took."""
        self.dial_s = seconds if not self.dial_s else 0.8 * self.dial_s + 0.2 * seconds
        self.refill_delay_s = min(MAX_REFILL_DELAY_S, max(REFILL_DELAY_S, self.dial_s / 2))

    def target(self, now: float) -> int:
        """Return how many to keep warm: twice the recent peak of leases during one dial, within the bounds."""
        is_held = self._peak > 1 and now - self._peak_at < HOLD_S
        peak = self._peak if is_held else self._recent(now)
        return max(self.minimum, min(self.maximum, 2 * peak))

    def _recent(self, now: float) -> int:
        return len(self._leases) - bisect_right(self._leases, now - self.dial_s - self.refill_delay_s)
