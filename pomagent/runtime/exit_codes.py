"""Exit codes of all commands, from sysexits.h where it has one."""

CANNOT_SERVE = 69
"""No tunnel could be opened (``probe``, ``tcp``), or no agent answers (``status``, ``reload``)."""
CANNOT_WRITE = 74
"""Standard output or a file cannot be written: the disk is full, or the file exists."""
NOT_YET = 75
"""An included file or directory cannot be read at the start. A later start may succeed without an edit."""
NOT_PERMITTED = 77
"""No route could be bound, or this user may not control the agent."""
INVALID = 78
"""The configuration is invalid."""
