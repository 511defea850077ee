"""Default paths of ``agent.toml``, the control socket and the state directory."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

CONFIG_VARIABLE = "POMAGENT_CONFIG"
LOCAL_PATH = Path("agent.toml")
SYSTEM_PATH = Path("/etc/pomagent/agent.toml")
RUNTIME_DIRECTORY = Path("/run/pomagent")
CONTROL_SOCKET = "control.sock"
SYSTEM_DIRECTORY = Path("/var/lib/pomagent")
ROOT = 0


def find_config(flag: str | Path | None, environ: Mapping[str, str]) -> Path:
    """Return the file to load: ``--config``, else ``POMAGENT_CONFIG``, else a trusted ``./agent.toml``, else /etc's."""
    if named := flag or environ.get(CONFIG_VARIABLE):
        return Path(named)
    return LOCAL_PATH if LOCAL_PATH.is_file() and not distrust_of_local_config() else SYSTEM_PATH


def distrust_of_local_config() -> str:
    """Return why ``./agent.toml`` must not be used, empty if it can be trusted or does not exist.

    The file runs commands and receives tokens with the rights of this user, so only this user and root may be able to
    change or replace it.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        return _writers(LOCAL_PATH, LOCAL_PATH.stat()) or _writers(LOCAL_PATH.parent.absolute(), Path().stat())
    return ""


def _writers(path: Path, status: os.stat_result) -> str:
    """Return which other users can change the path, with the remedy, empty if only this user and root can."""
    if status.st_uid not in {ROOT, os.geteuid()}:
        return f"{path} belongs to user {status.st_uid}, not to you or root"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"other users may write to {path} (chmod go-w {path})"
    return ""


def default_control_socket(environ: Mapping[str, str]) -> Path | None:
    """Return the control socket of the service or of this user's agent, None without a runtime directory."""
    is_service = str(RUNTIME_DIRECTORY) in environ.get("RUNTIME_DIRECTORY", "").split(":")
    if is_service or os.geteuid() == 0:
        return RUNTIME_DIRECTORY / CONTROL_SOCKET
    own = environ.get("XDG_RUNTIME_DIR")
    return Path(own, "pomagent", CONTROL_SOCKET) if own else None


def state_directory(environ: Mapping[str, str]) -> Path:
    """Return the directory in which this user's agents keep files from one run to the next."""
    if given := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(given)
    if os.geteuid() == 0:
        return SYSTEM_DIRECTORY
    return Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "pomagent"


def personal_state_directory(environ: Mapping[str, str]) -> Path:
    """Return where this user's commands keep what outlives them.

    Root's is below root's home, whatever $HOME is after sudo: ``SYSTEM_DIRECTORY`` belongs to the service's user.
    """
    if os.geteuid() == ROOT and not environ.get("STATE_DIRECTORY"):
        return Path(pwd.getpwuid(ROOT).pw_dir, ".local/state/pomagent")
    return state_directory(environ)
