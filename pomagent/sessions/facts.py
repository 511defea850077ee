"""What is known of a session while it runs."""

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
    """For its tunnel; None as long as it waits."""
    bytes_up: int
    bytes_down: int
    idle_s: float | None
    """Since the last byte, either way."""
    request_id: str
    """Of its tunnel, as the gateway's own log has it; empty without one."""
    was_warm: bool
