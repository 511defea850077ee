"""Carries out for a ``LoginSource`` what it asks of the gateway and of the user at the browser."""

from __future__ import annotations

import select
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from pomagent.credentials import edge_api
from pomagent.credentials.login.callback import CANCELLED, CallbackServer, Cancelled
from pomagent.credentials.login.flow import LoginOptions, LoginReport, log_in
from pomagent.errors import CredentialRejected
from pomagent.settings import Gateway

PAUSE_S = 0.2
"""Seconds between two checks whether another process has finished its login."""
NOWHERE = "http://127.0.0.1/"
"""Redirect of a sign-in URL that is only read, never opened."""


def cluster_of(gateway: Gateway, proxies: edge_api.Proxies | None = None) -> tuple[str, str]:
    """Return the host of a gateway's authenticate service and the identity provider. Blocks. Raises TunnelError."""
    parts = urlsplit(edge_api.sign_in_url(gateway, NOWHERE, proxies))
    return parts.hostname or "", parse_qs(parts.query).get("pomerium_idp_id", [""])[0]


class ClusterLogin:
    """Implements ``source.Cluster``. One thread uses it, and any thread may ``cancel``."""

    def __init__(
        self, gateway: Gateway, options: LoginOptions, report: LoginReport, environ: Mapping[str, str],
        proxies: edge_api.Proxies | None = None,
    ) -> None:  # fmt: skip
        self._gateway = gateway
        self._options = options
        self._report = report
        self._environ = environ
        self._proxies = proxies
        self._server: CallbackServer | None = None
        self._is_cancelled = False

    def log_in(self) -> SecretStr:
        """Ask the user to sign in. Blocks for minutes. Raises CredentialError and TunnelError."""
        try:
            return log_in(self._gateway, self._options, self._report, self._environ, self._proxies, self._started)
        finally:
            self._server = None

    def is_alive(self, token: SecretStr) -> bool:
        """Return whether the gateway accepts the token for any page. Blocks. Raises TunnelError."""
        try:
            edge_api.user(self._gateway, token, self._proxies)
        except CredentialRejected:
            return False
        return True

    def identity(self) -> tuple[str, str]:
        """Return the authenticate service's host and the identity provider. Blocks. Raises TunnelError."""
        return cluster_of(self._gateway, self._proxies)

    def pause(self) -> None:
        """Wait a moment for another process. Blocks. Raises Cancelled."""
        if self._is_cancelled:
            raise Cancelled(CANCELLED)
        select.select([], [], [], PAUSE_S)

    def cancel(self) -> None:
        """Cancel a running login and any later one, because the program ends."""
        self._is_cancelled = True
        if (server := self._server) is not None:
            server.cancel()

    def _started(self, server: CallbackServer) -> None:
        self._server = server
        if self._is_cancelled:
            server.cancel()
