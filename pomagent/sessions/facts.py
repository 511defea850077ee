"""A snapshot of one running session."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """One session at one moment."""

    number: int
    peer: str
    uid: int | None
    user: str | None
    age_s: float
    waited_ms: int | None
    """Milliseconds the client waited for its tunnel, or None while it waits."""
    bytes_up: int
    bytes_down: int
    idle_s: float | None
    """Seconds since the last byte in either direction, or None without a tunnel."""
    request_id: str
    """The tunnel's id in the gateway's own log, or empty without a tunnel."""
    was_warm: bool
