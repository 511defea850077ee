"""One login: the sign-in URL, a browser or a person who opens it, and the token that comes back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from pomagent.credentials.edge_api import Proxies, sign_in_url
from pomagent.credentials.login.browser import command_for, open_browser
from pomagent.credentials.login.callback import CallbackServer
from pomagent.errors import CredentialError
from pomagent.runtime.deadline import Deadline
from pomagent.settings import Gateway

LOGIN_TIMEOUT_S = 300.0
"""The sign-in URL ends then (wire contract §4.4)."""
LOOK_AFTER_S = 0.5
"""How often to look whether the browser's command has failed."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a person gets to the sign-in page, and back."""

    browser_cmd: str = ""
    opens_browser: bool = True
    callback_port: int = 0
    """0: any. A fixed one suits ``ssh -L``."""
    paste_from: int | None = None
    """A descriptor on which the redirect's address may be pasted."""
    timeout_s: float = LOGIN_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Report:
    """Where the login tells what it does; neither is ever given a token."""

    say: Callable[[str], None]
    """Sentences for the person who is to sign in."""
    forgery: Callable[[str], None]
    """A callback that somebody forged was refused."""


def log_in(
    gateway: Gateway, way: Way, report: Report, environ: Mapping[str, str] = os.environ, proxies: Proxies | None = None,
    on_start: Callable[[CallbackServer], None] = lambda _: None,
) -> SecretStr:  # fmt: skip
    """Have somebody sign in and return the token. Blocks, for minutes. Raises CredentialError and TunnelError.

    ``on_start`` is given what another thread may cancel.
    """
    with CallbackServer(way.callback_port, report.forgery) as server:
        on_start(server)
        deadline = Deadline(way.timeout_s)
        url = sign_in_url(gateway, server.redirect.uri, proxies)
        browser = _open(url, way, report, environ)
        _explain(url, way, report, environ, server.redirect.port, is_open=browser is not None)
        if way.paste_from is not None:
            server.take_pastes(way.paste_from, lambda why: report.say(f"that does not help: {why}; paste another"))
        token = _wait(server, deadline, browser, report)
    if token is None:
        raise CredentialError(
            f"nobody signed in within {way.timeout_s:g} s, and the sign-in page's address ends then; start again"
        )
    return token


def _wait(
    server: CallbackServer, deadline: Deadline, browser: subprocess.Popen[bytes] | None, report: Report
) -> SecretStr | None:
    while browser is not None and not deadline.is_over:
        if token := server.wait(Deadline(min(LOOK_AFTER_S, deadline.remaining_s))):
            return token
        if browser.poll():
            report.say(f"the browser's command failed with exit code {browser.returncode}; open the address yourself")
        if browser.returncode is not None:
            break  # ended: it has handed the page to a browser that runs already, or failed
    return server.wait(deadline)


def _open(url: str, way: Way, report: Report, environ: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
    if not way.opens_browser:
        return None
    try:
        command = command_for(url, way.browser_cmd, environ)
        return open_browser(command) if command else None
    except CredentialError as error:
        if way.browser_cmd:
            raise
        report.say(str(error))
        return None


def _explain(
    url: str, way: Way, report: Report, environ: Mapping[str, str], port: int, *, is_open: bool
) -> None:  # fmt: skip
    report.say(f"{'if no browser has opened, ' if is_open else ''}open this address to sign in (within 5 minutes):")
    report.say(url)
    if is_open:
        return
    if environ.get("SSH_CONNECTION"):
        report.say(f"for a browser on another machine: ssh -L {port}:127.0.0.1:{port} …, best with --callback-port")
    if way.paste_from is not None:
        report.say("or paste here the address at which the browser ends, even if it shows no page:")
