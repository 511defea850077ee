"""Chooses and starts the program that shows a page to the user, if there is a screen."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping

from pomagent.errors import CredentialError

OPENERS = ("xdg-open", "sensible-browser", "x-www-browser")
"""Commands of Linux desktops that open a page.

Python's ``webbrowser`` would also start text browsers in this terminal, and let them write to our standard output,
which may carry a tunnel.
"""


def command_for(url: str, browser_cmd: str, environ: Mapping[str, str]) -> list[str] | None:
    """Return the command that opens ``url``: the requested one, else the system's, or None if there is none.

    Raises CredentialError for a requested command that cannot be parsed.
    """
    if browser_cmd:
        return _with_url(browser_cmd, url)
    if named := environ.get("BROWSER", "").partition(":")[0]:
        return _with_url(named, url)
    if not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        return None
    opener = next((found for name in OPENERS if (found := shutil.which(name, path=environ.get("PATH")))), None)
    return [opener, url] if opener else None


def open_browser(command: list[str]) -> subprocess.Popen[bytes]:
    """Start the browser's command, detached from our terminal, input and output. Raises CredentialError."""
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise CredentialError(
            f"install or choose another browser; {command[0]} cannot be started: {error.strerror}"
        ) from error


def _with_url(text: str, url: str) -> list[str]:
    """Return a command's words with the address in place of ``%s``, or as the last word. Raises CredentialError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise CredentialError(f"correct the browser's command, which cannot be parsed: {error}") from error
    if not words:
        raise CredentialError("name a program; the browser's command is empty")
    if any("%s" in word for word in words):
        return [word.replace("%s", url) for word in words]
    return [*words, url]
