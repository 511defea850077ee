"""How long a token says it lives: a hint for refreshing and for warnings, never a verdict. Pure.

The gateway alone decides whether a token is good: it ignores ``exp`` (wire contract §2.2), and clocks differ.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

LADDER_S = (7 * 86_400.0, 86_400.0, 3_600.0, 0.0)
"""A warning each when so much life is left: a week to order a new account, a day, an hour; the last one is an error."""
SHORT_LIFE_S = 3_600.0
SHORT_MARGIN_S = 240.0
"""A token of an hour or less is refreshed so long before its end, others at half of their life."""
LEAST_WAIT_S = 30.0
"""Between two refreshes: a command that prints an old token must not run in a loop."""


@dataclass(frozen=True, slots=True)
class Life:
    """Seconds since the epoch; None where the token does not say."""

    issued_at: float | None = None
    expires_at: float | None = None

    def left_s(self, now: float) -> float | None:
        return None if self.expires_at is None else self.expires_at - now


def life_of(token: str) -> Life:
    """Read ``iat`` and ``exp`` of a JWT, without verifying anything; an opaque token says nothing."""
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


def refresh_at(life: Life, got_at: float) -> float | None:
    """When to fetch the next token: at half-life, or shortly before the end of a short one; None if it never ends."""
    if life.expires_at is None:
        return None
    whole = life.expires_at - got_at
    at = life.expires_at - SHORT_MARGIN_S if whole <= SHORT_LIFE_S else got_at + whole / 2
    return max(at, got_at + LEAST_WAIT_S)


def step_of(life: Life, now: float) -> int:
    """How many steps of the ladder a token has gone down: 0 is well, ``len(LADDER_S)`` is expired."""
    left = life.left_s(now)
    return 0 if left is None else sum(left <= step for step in LADDER_S)


def next_step_at(life: Life, now: float) -> float | None:
    """When the next step of the ladder comes; None if there is none."""
    step = step_of(life, now)
    if life.expires_at is None or step >= len(LADDER_S):
        return None
    return life.expires_at - LADDER_S[step]


def _moment(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < 1e11 else None  # type: ignore[operator,arg-type]
