"""Compares this host's clock with a gateway's, by the Date header of its answers (RFC 9110 §6.6.1). Pure."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from functools import lru_cache

TOLERANCE_S = 60.0
"""Largest offset, in seconds, that counts as agreement: token checkers commonly forgive it, and a Date is rounded to
seconds and slightly old."""
_UNITS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def offset_s(date: str, now: float) -> float | None:
    """Return the gateway's clock minus ``now``, in seconds. None if ``date`` is malformed."""
    gateway_now = _seconds(date)
    return None if gateway_now is None else gateway_now - now


@lru_cache(maxsize=16)  # all answers within a second carry the same Date
def _seconds(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def is_off(offset: float | None) -> bool:
    """Return whether the clocks differ enough to affect tokens and certificates."""
    return offset is not None and abs(offset) > TOLERANCE_S


def problem(offset: float | None) -> str:
    """Return the fault and its remedy as a clause for a sentence. Empty if the clocks agree."""
    if offset is None or not is_off(offset):
        return ""
    way = "behind" if offset > 0 else "ahead of"
    return f"this host's clock is {duration(abs(offset))} {way} the gateway's: set it, or the gateway's"


def duration(seconds: float) -> str:
    """Return a duration in its largest unit, rounded down: ``2 hours``."""
    size, unit = next((row for row in _UNITS if seconds >= row[0]), _UNITS[-1])
    count = int(seconds / size)
    return f"{count} {unit[:-1] if count == 1 else unit}"
