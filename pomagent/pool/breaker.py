"""Whether a route may be dialled now, and by whom, after dials have failed. Pure.

A wait after failures is the pool's, never a client's: while the breaker is open, the clients that ask share one dial a
second and its outcome.
"""

from __future__ import annotations

from enum import Enum

from pomagent.errors import Recovery
from pomagent.pool.backoff import FAST_TRIES, Backoff, Dice

SHARE_S = 1.0
"""Between the beginnings of two dials for clients while the breaker is open."""


class BreakerState(Enum):
    CLOSED = "closed"
    """Dial as you need."""
    OPEN = "open"
    """The pool waits."""
    HALF_OPEN = "half_open"
    """The wait is over: one dial may find out."""


class Breaker:
    """The failures of one route's dials, and what they allow."""

    def __init__(self, dice: Dice) -> None:
        self._backoff = Backoff(dice)
        self._opened_at: float | None = None
        self._share_at = 0.0
        self.failures = 0
        """Dials that failed since the last success."""

    @property
    def is_open(self) -> bool:
        """Whether clients share their dials: open or half open."""
        return self._opened_at is not None

    @property
    def retry_at(self) -> float:
        """Before that the pool dials nothing."""
        return self._backoff.retry_at

    def state(self, now: float) -> BreakerState:
        if not self.is_open:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self.retry_at else BreakerState.HALF_OPEN

    def open_s(self, now: float) -> float:
        """How long it has been open."""
        return 0.0 if self._opened_at is None else now - self._opened_at

    def failed(self, recovery: Recovery, now: float, at_least_s: float = 0.0) -> bool:
        """Count a dial that failed; True if that opens the breaker.

        What time may heal gets its fast tries first: a gateway that restarts is back before they are over. A verdict of
        the gateway, and what it asks to wait for, counts at once.
        """
        self.failures += 1
        self._backoff.failed(recovery, now, at_least_s)
        is_serious = recovery is not Recovery.RETRY or at_least_s > 0 or self._backoff.failures > FAST_TRIES
        if self.is_open or not is_serious:
            return False
        self._opened_at = now
        return True

    def succeeded(self, now: float) -> bool:
        """Count a dial that worked; True if that closes the breaker."""
        self._backoff.succeeded(now)
        return self._close()

    def hurry(self, at: float) -> None:
        """Let the pool try at this moment, if not before: something is better than it was."""
        self._backoff.hurry(at)

    def reset(self) -> bool:
        """Forget the failures: something changed that may heal them; True if that closes the breaker."""
        self._backoff.reset()
        return self._close()

    def begun(self, now: float) -> None:
        """A dial for clients begins."""
        self._share_at = now + SHARE_S

    @property
    def share_at(self) -> float:
        """From then on the next dial for all clients that ask may begin."""
        return self._share_at

    def _close(self) -> bool:
        was_open, self._opened_at, self.failures = self.is_open, None, 0
        return was_open
