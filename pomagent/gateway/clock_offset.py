"""How far this host's clock is from a gateway's, by the Date of its answers (RFC 9110 §6.6.1). Pure."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from functools import lru_cache

TOLERANCE_S = 60.0
"""What checkers of tokens commonly forgive; a Date is rounded to seconds and a little old besides."""
_UNITS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def offset_s(date: str, now: float) -> float | None:
    """Seconds to add to our clock, which says ``now``, to have the one that wrote ``date``; None if that is no date."""
    told = _seconds(date)
    return None if told is None else told - now


@lru_cache(maxsize=16)  # all answers of a second carry the same
def _seconds(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def is_off(offset: float | None) -> bool:
    """Whether one of the two clocks is so wrong that tokens and certificates suffer."""
    return offset is not None and abs(offset) > TOLERANCE_S


def said(offset: float | None) -> str:
    """What is wrong with our clock and what to do, for the middle of a sentence; empty if it agrees."""
    if offset is None or not is_off(offset):
        return ""
    way = "behind" if offset > 0 else "ahead of"
    return f"this host's clock is {duration(abs(offset))} {way} the gateway's: set it, or the gateway's"


def duration(seconds: float) -> str:
    """A length of time for people, in its largest unit: ``2 hours``."""
    size, unit = next((row for row in _UNITS if seconds >= row[0]), _UNITS[-1])
    count = int(seconds / size)
    return f"{count} {unit[:-1] if count == 1 else unit}"
