"""What a ``LoginSource`` asks: the gateway, and the person in front of the browser."""

from __future__ import annotations

import select
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from pomagent.credentials import edge_api
from pomagent.credentials.login.callback import CallbackServer, Cancelled
from pomagent.credentials.login.flow import Report, Way, log_in
from pomagent.errors import CredentialRejected
from pomagent.settings import Gateway

PAUSE_S = 0.2
NOWHERE = "http://127.0.0.1/"
"""A redirect for a sign-in page that nobody will open."""


def cluster_of(gateway: Gateway, proxies: edge_api.Proxies | None = None) -> tuple[str, str]:
    """The host of a gateway's authenticate service and its identity provider. Blocks. Raises TunnelError."""
    parts = urlsplit(edge_api.sign_in_url(gateway, NOWHERE, proxies))
    return parts.hostname or "", parse_qs(parts.query).get("pomerium_idp_id", [""])[0]


class People:
    """``source.Edge`` for real. One thread uses it; any may ``cancel``."""

    def __init__(
        self, gateway: Gateway, way: Way, report: Report, environ: Mapping[str, str],
        proxies: edge_api.Proxies | None = None,
    ) -> None:  # fmt: skip
        self._gateway = gateway
        self._way = way
        self._report = report
        self._environ = environ
        self._proxies = proxies
        self._server: CallbackServer | None = None
        self._is_cancelled = False

    def log_in(self) -> SecretStr:
        """Have somebody sign in. Blocks. Raises CredentialError and TunnelError."""
        try:
            return log_in(self._gateway, self._way, self._report, self._environ, self._proxies, self._started)
        finally:
            self._server = None

    def is_alive(self, token: SecretStr) -> bool:
        """Whether the gateway knows the token, whatever it opens. Blocks. Raises TunnelError."""
        try:
            edge_api.user(self._gateway, token, self._proxies)
        except CredentialRejected:
            return False
        return True

    def cluster(self) -> tuple[str, str]:
        """The host of the gateway's authenticate service and its identity provider. Blocks. Raises TunnelError."""
        return cluster_of(self._gateway, self._proxies)

    def pause(self) -> None:
        """Wait a moment for another process. Blocks. Raises Cancelled."""
        if self._is_cancelled:
            raise Cancelled("the login was given up")
        select.select([], [], [], PAUSE_S)

    def cancel(self) -> None:
        """Give up, at once and for good: the program ends."""
        self._is_cancelled = True
        if (server := self._server) is not None:
            server.cancel()

    def _started(self, server: CallbackServer) -> None:
        self._server = server
        if self._is_cancelled:
            server.cancel()
