"""Declares keys of ``agent.toml``: default, bounds, meaning, and how a changed value is applied."""

from __future__ import annotations

from typing import Any

from pydantic import Field

HOUR_S = 3600
DAY_S = 86_400
YEAR_S = 366 * DAY_S

LIVE = "live"
"""Applied at the next use."""
NEW_SESSIONS = "new-sessions"
"""Applied to new sessions. Warm tunnels are retired, and open sessions keep the old value."""
REBIND = "rebind"
"""Applied by opening, replacing or closing the listener. Open sessions continue."""
RESTART = "restart"
"""Applied at the next start."""


def key(default: Any, apply: str, description: str, **bounds: Any) -> Any:
    """Declare one key."""
    return Field(default, description=description, json_schema_extra={"x-apply": apply}, **bounds)


def seconds(default: float, apply: str, description: str, *, most: float = YEAR_S) -> Any:
    """Declare a duration in seconds for which 0 is a special value, such as off."""
    return key(default, apply, description, ge=0, le=most, allow_inf_nan=False)


def timeout(default: float, description: str, *, most: float = HOUR_S) -> Any:
    """Declare a timeout in seconds, which is never 0."""
    return key(default, NEW_SESSIONS, description, gt=0, le=most, allow_inf_nan=False)


def off(apply: str, description: str) -> Any:
    """Declare a switch that is off by default."""
    return key(default=False, apply=apply, description=description)


def on(apply: str, description: str) -> Any:
    """Declare a switch that is on by default."""
    return key(default=True, apply=apply, description=description)
