"""When a pool may refill after leases and after warm tunnels were lost, and since when it is short of tunnels. Pure."""

from __future__ import annotations

from pomagent.pool.backoff import Backoff, Dice

LOSS_REVIEW_S = 0.1
"""Seconds after a warm tunnel was lost before it is replaced: by then the gateway's other losses are known."""


class RefillPacing:
    """The waits of one pool that do not come from failed dials."""

    def __init__(self, dice: Dice) -> None:
        self._from = 0.0
        self._early_closes = Backoff(dice)
        """Delays refills after warm tunnels that closed young. Dials work, so clients do not wait for it."""
        self._review_at: float | None = None
        self._short_since: float | None = None

    @property
    def refill_from(self) -> float:
        """When the next refill may begin."""
        return max(self._from, self._early_closes.retry_at)

    @property
    def review_at(self) -> float | None:
        """When to ask whether the gateway lost many tunnels at once, or None if no loss awaits that."""
        return self._review_at

    @property
    def early_close_count(self) -> int:
        """Waves of warm tunnels that closed young, in a row."""
        return self._early_closes.failure_count

    def leased(self, now: float, delay_s: float) -> float:
        """Delay the refill after a lease, and return when it may begin.

        Later leases do not delay it again: under constant load there would be no refill at all.
        """
        if now >= self._from:
            self._from = now + delay_s
        return self._from

    def lost(self, age_s: float, now: float, verdict_at: float) -> None:
        """Delay the replacement of a warm tunnel that closed at this age, at least until ``verdict_at``."""
        if self._review_at is None:
            self._review_at = now + LOSS_REVIEW_S
        self._from = max(self._from, now + LOSS_REVIEW_S, verdict_at)
        self._early_closes.closed_early(age_s, now)

    def is_review_due(self, now: float) -> bool:
        """Return True once when the last losses are to be reviewed."""
        is_due = self._review_at is not None and now >= self._review_at
        if is_due:
            self._review_at = None
        return is_due

    def delay_until(self, at: float) -> None:
        """Begin no refill before this moment."""
        self._from = max(self._from, at)

    def forgive(self) -> None:
        """Forget the delays after warm tunnels that closed young."""
        self._early_closes.reset()

    def note_depth(self, now: float, *, is_short: bool) -> None:
        """Record whether fewer tunnels are warm than the minimum."""
        if not is_short:
            self._short_since = None
        elif self._short_since is None:
            self._short_since = now

    def is_short_for(self, seconds: float, now: float) -> bool:
        """Return whether the pool has been below its minimum for longer than this."""
        return self._short_since is not None and now - self._short_since > seconds
