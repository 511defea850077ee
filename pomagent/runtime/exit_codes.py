"""Exit codes, after sysexits.h where it has one."""

CANNOT_SERVE = 69
"""No tunnel (``probe``, ``tcp``), or no agent that answers (``status``, ``reload``)."""
CANNOT_WRITE = 74
"""Standard output, or a file, takes nothing more: the disk is full, or the file is there already."""
NOT_PERMITTED = 77
"""No route could be bound, or this user may not steer the agent."""
INVALID = 78
"""The configuration is invalid."""
