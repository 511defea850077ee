"""Which program shows a page to the person who sits there, if somebody does."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping

from pomagent.errors import CredentialError

OPENERS = ("xdg-open", "sensible-browser", "x-www-browser")
"""What a Linux desktop has. Python's ``webbrowser`` would also start text browsers in this terminal, and let any of
them write to our standard output, which may be a tunnel's."""


def command_for(url: str, browser_cmd: str, environ: Mapping[str, str]) -> list[str] | None:
    """The command that opens ``url``: the one asked for, else the system's; None where there is none.

    Raises CredentialError for a command that cannot be read or found.
    """
    if browser_cmd:
        return _asked_for(browser_cmd, url)
    if named := environ.get("BROWSER", "").partition(":")[0]:
        return _asked_for(named, url)
    if not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        return None
    opener = next((found for name in OPENERS if (found := shutil.which(name, path=environ.get("PATH")))), None)
    return [opener, url] if opener else None


def open_browser(command: list[str]) -> subprocess.Popen[bytes]:
    """Start it, apart from our terminal, our input and our output. Raises CredentialError."""
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise CredentialError(f"the browser {command[0]} cannot be started: {error.strerror}") from error


def _asked_for(text: str, url: str) -> list[str]:
    """``%s`` stands for the address; without it the address comes last."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise CredentialError(f"the browser's command cannot be read: {error}") from error
    if not words:
        raise CredentialError("the browser's command is empty")
    if any("%s" in word for word in words):
        return [word.replace("%s", url) for word in words]
    return [*words, url]
