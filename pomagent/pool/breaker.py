"""Decides when a route may be dialled after dials have failed, for clients and for refills. Pure.

The delay after failures holds back refills, never clients: while the breaker is open, waiting clients share one dial a
second and its outcome.
"""

from __future__ import annotations

from enum import Enum

from pomagent.errors import Recovery
from pomagent.pool.backoff import FAST_TRIES, Backoff, Dice

SHARE_S = 1.0
"""Minimum seconds between the starts of two dials for clients while they share them."""


class BreakerState(Enum):
    """What the breaker permits."""

    CLOSED = "closed"
    """Any dial."""
    OPEN = "open"
    """No refill."""
    HALF_OPEN = "half_open"
    """One refill, which finds out whether dials succeed again: the delay is over."""


class Breaker:
    """The failures of one route's dials, and what they permit."""

    def __init__(self, dice: Dice) -> None:
        self._backoff = Backoff(dice)
        self._opened_at: float | None = None
        self._shared_dial_from = 0.0
        self.failure_count = 0
        """Dials that failed since the last success."""

    @property
    def is_open(self) -> bool:
        """Whether clients share their dials: the breaker is open or half open."""
        return self._opened_at is not None

    @property
    def retry_at(self) -> float:
        """When the next refill may begin."""
        return self._backoff.retry_at

    @property
    def shared_dial_from(self) -> float:
        """When the next dial that all waiting clients share may begin."""
        return self._shared_dial_from

    def state(self, now: float) -> BreakerState:
        if not self.is_open:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self.retry_at else BreakerState.HALF_OPEN

    def open_s(self, now: float) -> float:
        """Return for how many seconds the breaker has been open."""
        return 0.0 if self._opened_at is None else now - self._opened_at

    def failed(self, recovery: Recovery, now: float, at_least_s: float = 0.0) -> bool:
        """Count a failed dial, and return whether it opens the breaker.

        A failure that time may cure opens it only after the fast tries: a restarting gateway is back before they are
        over. A verdict of the gateway, or its request to wait, opens it at once.
        """
        self.failure_count += 1
        self._backoff.failed(recovery, now, at_least_s)
        is_serious = recovery is not Recovery.RETRY or at_least_s > 0 or self._backoff.failure_count > FAST_TRIES
        if self.is_open or not is_serious:
            return False
        self._opened_at = now
        return True

    def succeeded(self, now: float) -> bool:
        """Account for a dial that succeeded, and return whether it closes the breaker."""
        self._backoff.succeeded(now)
        return self._close()

    def hurry(self, at: float) -> None:
        """Permit a refill at this moment at the latest: something has improved."""
        self._backoff.hurry(at)

    def reset(self) -> bool:
        """Forget the failures because something changed that may cure them. Return whether this closes the breaker."""
        self._backoff.reset()
        return self._close()

    def client_dial_began(self, now: float) -> None:
        """Account for a dial for clients: the next shared one follows after ``SHARE_S``."""
        self._shared_dial_from = now + SHARE_S

    def _close(self) -> bool:
        was_open, self._opened_at, self.failure_count = self.is_open, None, 0
        return was_open
