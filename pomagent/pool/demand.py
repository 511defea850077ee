"""How many tunnels a route should have warm: as many as it is about to need. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

REFILL_DELAY_S = 0.02
"""After a take, so that the refill's handshake does not compete with the client's first byte (2.1 → 1.4 ms)."""

MOST_REFILL_DELAY_S = 0.25
"""Where the gateway is so far away that half a dial takes longer."""

HOLD_S = 60.0
"""What a burst needed is held ready for so long: they come again, and a refill takes longer than one lasts."""


class Demand:
    """What was taken lately, and how long it takes to replace it."""

    def __init__(self, minimum: int, maximum: int) -> None:
        self.minimum = minimum
        self.maximum = max(minimum, maximum)
        self._takes: deque[float] = deque(maxlen=max(2, maximum * 2))
        self._most = 0
        self._most_at = float("-inf")
        self.dial_s = 0.0
        """How long a dial takes lately (a moving average)."""
        self.refill_delay_s = REFILL_DELAY_S
        """Half a dial, which is more than a round trip: by then the first byte of who took a tunnel is back."""

    def note_take(self, now: float) -> None:
        """Remember that a client asked, whether or not there was something to take."""
        self._takes.append(now)
        lately = self._lately(now)
        if lately >= self._most or now - self._most_at >= HOLD_S:
            self._most, self._most_at = lately, now

    def dial_took(self, seconds: float) -> None:
        self.dial_s = seconds if not self.dial_s else 0.8 * self.dial_s + 0.2 * seconds
        self.refill_delay_s = min(MOST_REFILL_DELAY_S, max(REFILL_DELAY_S, self.dial_s / 2))

    def target(self, now: float) -> int:
        """About twice the most that was lately taken until a refill was there, within the bounds."""
        is_held = self._most > 1 and now - self._most_at < HOLD_S
        most = self._most if is_held else self._lately(now)
        return max(self.minimum, min(self.maximum, 2 * most))

    def _lately(self, now: float) -> int:
        return len(self._takes) - bisect_right(self._takes, now - self.dial_s - self.refill_delay_s)
