"""Types and bounds of values in ``agent.toml``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]*$"

MAX_WARM = 1000
"""Maximum warm tunnels of one route. Each is a descriptor here and a connection to the server there."""
MAX_SESSIONS = 1_000_000
"""Maximum for ``max_sessions``: more than a host has local ports, descriptors or memory for."""

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Text = Annotated[str, StringConstraints(min_length=1)]
LogSessions = Annotated[str, StringConstraints(pattern=r"^(all|errors|none|1/[1-9][0-9]{0,5})$")]
Protocol = Literal["auto", "generic", "http", "redis", "postgres", "mysql", "ssh", "rdp", "mssql"]
