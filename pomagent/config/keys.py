"""How a key of ``agent.toml`` is declared: default, bounds, meaning, and how a changed value is applied."""

from __future__ import annotations

from typing import Any

from pydantic import Field

HOUR_S = 3600
DAY_S = 86_400
YEAR_S = 366 * DAY_S

LIVE = "live"  # read anew at each use
NEW_SESSIONS = "new-sessions"  # warm tunnels are retired; sessions that are open keep the old value
REBIND = "rebind"  # the listener is opened, replaced or closed; sessions live on
RESTART = "restart"


def key(default: Any, apply: str, description: str, **bounds: Any) -> Any:
    """Declares one key."""
    return Field(default, description=description, json_schema_extra={"x-apply": apply}, **bounds)


def seconds(default: float, apply: str, description: str, *, most: float = YEAR_S) -> Any:
    """Declares a duration for which 0 has a meaning of its own."""
    return key(default, apply, description, ge=0, le=most, allow_inf_nan=False)


def timeout(default: float, description: str, *, most: float = HOUR_S) -> Any:
    """Declares the longest that one thing may take: never 0."""
    return key(default, NEW_SESSIONS, description, gt=0, le=most, allow_inf_nan=False)


def off(apply: str, description: str) -> Any:
    """Declares a switch that is off by default."""
    return key(default=False, apply=apply, description=description)


def on(apply: str, description: str) -> Any:
    """Declares a switch that is on by default."""
    return key(default=True, apply=apply, description=description)
