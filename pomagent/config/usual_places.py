"""Where things are if nobody says otherwise: ``agent.toml``, and the socket at which its agent is steered."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

CONFIG_VARIABLE = "POMAGENT_CONFIG"
LOCAL_PATH = Path("agent.toml")
SYSTEM_PATH = Path("/etc/pomagent/agent.toml")
RUNTIME_DIRECTORY = Path("/run/pomagent")
CONTROL_SOCKET = "control.sock"


def find_config(flag: str | Path | None, environ: Mapping[str, str]) -> Path:
    """The file to load: ``--config``, else ``POMAGENT_CONFIG``, else ``./agent.toml`` if there is one, else /etc's."""
    if named := flag or environ.get(CONFIG_VARIABLE):
        return Path(named)
    return LOCAL_PATH if LOCAL_PATH.is_file() else SYSTEM_PATH


def default_control_socket(environ: Mapping[str, str]) -> Path | None:
    """Where the agent of this user, or the service, is steered; None where no directory is the user's own."""
    is_service = str(RUNTIME_DIRECTORY) in environ.get("RUNTIME_DIRECTORY", "").split(":")
    if is_service or os.geteuid() == 0:
        return RUNTIME_DIRECTORY / CONTROL_SOCKET
    own = environ.get("XDG_RUNTIME_DIR")
    return Path(own, "pomagent", CONTROL_SOCKET) if own else None
