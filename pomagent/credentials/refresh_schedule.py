"""When a token expires by its own claims: a hint for refreshing and warnings, never a verdict. Pure.

The gateway alone decides whether a token is good. It ignores ``exp`` (wire contract §2.2), and clocks differ.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

WARN_BEFORE_S = (7 * 86_400.0, 86_400.0, 3_600.0, 0.0)
"""Remaining seconds at which to warn: a week leaves time to order a new account. The last step is an error."""
SHORT_LIFE_S = 3_600.0
"""Maximum lifetime of a short-lived token, which is refreshed shortly before it expires. Others are at half-life."""
SHORT_MARGIN_S = 240.0
"""Seconds before its expiry at which a short-lived token is refreshed."""
MIN_REFRESH_PAUSE_S = 30.0
"""Minimum seconds between two refreshes, so that a command that prints an expired token does not run in a loop."""
MIN_SLEEP_S, MAX_SLEEP_S = 0.1, 86_400.0
"""Bounds of one sleep until the next refresh or warning. The upper one corrects for a clock that was set."""


@dataclass(frozen=True, slots=True)
class Life:
    """When a token was issued and when it expires, in seconds since the epoch, or None if it has no such claim."""

    issued_at: float | None = None
    expires_at: float | None = None

    def left_s(self, now: float) -> float | None:
        """Return the remaining seconds, negative after the expiry."""
        return None if self.expires_at is None else self.expires_at - now


def life_of(token: str) -> Life:
    """Read ``iat`` and ``exp`` of a JWT without verifying it. An opaque token has neither."""
    parts = token.split(".")
    if len(parts) != 3:
        return Life()
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return Life()
    if not isinstance(claims, dict):
        return Life()
    return Life(_moment(claims.get("iat")), _moment(claims.get("exp")))


def refresh_at(life: Life, obtained_at: float) -> float | None:
    """Return when to fetch the next token: at half-life, or shortly before a short-lived one expires.

    None for a token that never expires.
    """
    if life.expires_at is None:
        return None
    whole = life.expires_at - obtained_at
    at = life.expires_at - SHORT_MARGIN_S if whole <= SHORT_LIFE_S else obtained_at + whole / 2
    return max(at, obtained_at + MIN_REFRESH_PAUSE_S)


def retry_at(planned_at: float | None, failed_at: float, now: float) -> float | None:
    """Return the planned time of a refresh, postponed if the last fetch has just failed."""
    if planned_at is None or not is_recent(failed_at, MIN_REFRESH_PAUSE_S, now):
        return planned_at
    return max(planned_at, failed_at + MIN_REFRESH_PAUSE_S)


def is_recent(at: float, within_s: float, now: float) -> bool:
    """Return whether ``at`` is less than ``within_s`` ago. False if it is ahead: the clock was set back."""
    return 0 <= now - at < within_s


def warning_step(life: Life, now: float) -> int:
    """Return how many steps of ``WARN_BEFORE_S`` are reached: 0 is well, ``len(WARN_BEFORE_S)`` is expired."""
    left_s = life.left_s(now)
    return 0 if left_s is None else sum(left_s <= step_s for step_s in WARN_BEFORE_S)


def next_warning_at(life: Life, now: float) -> float | None:
    """Return when the next step of ``WARN_BEFORE_S`` is reached, or None after the last one."""
    step = warning_step(life, now)
    if life.expires_at is None or step >= len(WARN_BEFORE_S):
        return None
    return life.expires_at - WARN_BEFORE_S[step]


def sleep_s(moments: tuple[float | None, ...], now: float) -> float | None:
    """Return the bounded seconds until the first of ``moments``, or None if there is none."""
    known = [at for at in moments if at is not None]
    return min(max(MIN_SLEEP_S, min(known) - now), MAX_SLEEP_S) if known else None


def _moment(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < 1e11 else None  # type: ignore[operator,arg-type]
