"""Exit codes, after sysexits.h where it has one."""

CANNOT_SERVE = 69
"""``probe`` and ``tcp``: no tunnel, whatever the reason."""
NOT_PERMITTED = 77
"""No route could be bound."""
INVALID = 78
"""The configuration is invalid."""
