"""Selects the arguments of a change that may be logged. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

LOGGED_ARGUMENTS: Final = frozenset({"sessions", "routes", "level", "for_s", "drain", "gateway", "credential"})
"""All other arguments stay out of the log: a login sends its token this way."""
MAX_ITEMS: Final = 20
"""Maximum items logged of a list."""
MAX_CHARACTERS: Final = 253
"""Maximum characters logged of a text: the maximum length of a host name."""


def loggable_arguments(body: Mapping[str, Any]) -> dict[str, object]:
    """Return the known, harmless arguments of a request's body, shortened, without values of an unexpected type."""
    shortened = {key: _shortened(body[key]) for key in sorted(LOGGED_ARGUMENTS & body.keys())}
    return {key: value for key, value in shortened.items() if value is not None}


def _shortened(value: object) -> object:
    if isinstance(value, str):
        return value[:MAX_CHARACTERS]
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, list):
        more = [f"and {len(value) - MAX_ITEMS} more"] if len(value) > MAX_ITEMS else []
        return [_shortened(item) for item in value[:MAX_ITEMS] if not isinstance(item, list)] + more
    return None
