"""Runs one login: gets the sign-in URL, opens it in a browser or shows it, and waits for the token."""

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
"""Maximum seconds of a login. The sign-in URL expires then (wire contract §4.4)."""
BROWSER_CHECK_S = 0.5
"""Seconds between two checks whether the browser's command has failed."""


@dataclass(frozen=True, slots=True)
class LoginOptions:
    """How the user gets to the sign-in page, and how the token gets back."""

    browser_cmd: str = ""
    opens_browser: bool = True
    callback_port: int = 0
    """Port of the redirect, where 0 is any free one. A fixed port suits ``ssh -L``."""
    paste_from: int | None = None
    """Descriptor from which a pasted redirect address is read."""
    timeout_s: float = LOGIN_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class LoginReport:
    """Receivers of a login's messages, which never contain a token."""

    show: Callable[[str], None]
    """Shows a sentence to the user."""
    on_forgery: Callable[[str], None]
    """Called when a forged callback was refused."""


def log_in(
    gateway: Gateway, options: LoginOptions, report: LoginReport, environ: Mapping[str, str] = os.environ,
    proxies: Proxies | None = None,
    on_start: Callable[[CallbackServer], None] = lambda _: None,
) -> SecretStr:  # fmt: skip
    """Ask the user to sign in and return the token. Blocks for minutes. Raises CredentialError and TunnelError.

    ``on_start`` gets the server, which another thread may cancel.
    """
    with CallbackServer(options.callback_port, report.on_forgery, environ) as server:
        on_start(server)
        deadline = Deadline(options.timeout_s)
        url = sign_in_url(gateway, server.redirect.uri, proxies)
        browser = _open(url, options, report, environ)
        _explain(url, options, report, environ, server.redirect.port, is_open=browser is not None)
        if options.paste_from is not None:
            server.take_pastes(
                options.paste_from, lambda why: report.show(f"paste another address; this one cannot be used: {why}")
            )
        token = _wait(server, deadline, browser, report)
    if token is None:
        raise CredentialError(
            f"start again: no login within {options.timeout_s:g} s, after which the sign-in address expires"
        )
    return token


def _wait(
    server: CallbackServer, deadline: Deadline, browser: subprocess.Popen[bytes] | None, report: LoginReport
) -> SecretStr | None:
    while browser is not None and not deadline.is_over:
        if token := server.wait(Deadline(min(BROWSER_CHECK_S, deadline.remaining_s))):
            return token
        if browser.poll():
            report.show(f"open the address yourself: the browser's command failed with exit code {browser.returncode}")
        if browser.returncode is not None:
            break  # it has failed, or passed the page to a running browser
    return server.wait(deadline)


def _open(
    url: str, options: LoginOptions, report: LoginReport, environ: Mapping[str, str]
) -> subprocess.Popen[bytes] | None:
    if not options.opens_browser:
        return None
    try:
        command = command_for(url, options.browser_cmd, environ)
        return open_browser(command) if command else None
    except CredentialError as error:
        if options.browser_cmd:
            raise
        report.show(str(error))
        return None


def _explain(
    url: str, options: LoginOptions, report: LoginReport, environ: Mapping[str, str], port: int, *, is_open: bool
) -> None:  # fmt: skip
    report.show(f"{'if no browser has opened, ' if is_open else ''}open this address to sign in (within 5 minutes):")
    report.show(url)
    if is_open:
        return
    if environ.get("SSH_CONNECTION"):
        report.show(f"for a browser on another machine: ssh -L {port}:127.0.0.1:{port} …, best with --callback-port")
    if options.paste_from is not None:
        report.show("or paste here the address that the browser shows in the end, even without a page:")
