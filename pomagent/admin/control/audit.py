"""What the log says of a change beside who asked for it: the arguments that are no secret. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

LOGGED_ARGUMENTS: Final = frozenset({"sessions", "routes", "level", "for_s", "drain", "gateway", "credential"})
"""Everything else stays out of the log, whatever it is: a login brings its token this way."""
MAX_ITEMS: Final = 20
"""Of a list."""
MAX_CHARACTERS: Final = 253
"""Of a text: as long as the name of a host may be."""


def loggable_arguments(asked: Mapping[str, Any]) -> dict[str, object]:
    """Of a request's body, what may be told and is of a form that it may have."""
    told = {key: _told(asked[key]) for key in sorted(LOGGED_ARGUMENTS & asked.keys())}
    return {key: value for key, value in told.items() if value is not None}


def _told(value: object) -> object:
    if isinstance(value, str):
        return value[:MAX_CHARACTERS]
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, list):
        more = [f"and {len(value) - MAX_ITEMS} more"] if len(value) > MAX_ITEMS else []
        return [_told(each) for each in value[:MAX_ITEMS] if not isinstance(each, list)] + more
    return None
