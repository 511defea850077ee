"""The user's token for ``pomagent tcp``: from an earlier login, or from one that a refusal starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from pydantic import SecretStr

from pomagent.credentials.login.cluster_login import ClusterLogin
from pomagent.credentials.login.flow import LoginOptions, LoginReport
from pomagent.credentials.login.source import LoginSource
from pomagent.credentials.login.stored import user_cache
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.threads import Threads
from pomagent.settings import Credential, Gateway, Route


class OnDemandTokens:
    """Tokens of one gateway. Logins run in a thread, off the hub."""

    def __init__(
        self,
        gateway: Gateway,
        options: LoginOptions,
        show: Callable[[str], None],
        environ: Mapping[str, str],
        log: Logger,
    ) -> None:
        self._threads = Threads(1)

        def on_forgery(why: str) -> None:
            log.warning(events.CALLBACK_REFUSED, why=why)
            if not log.is_enabled_for("warning"):  # the log is silent on standard input and output
                show(f"refused a forged callback: {why}")

        report = LoginReport(show, on_forgery)
        self._cluster = ClusterLogin(gateway, options, report, environ)
        self._logins = LoginSource(gateway.address, user_cache(environ), self._cluster)

    def seeded(self, route: Route) -> Route:
        """Return the route with the token of an earlier login, if there is one. Blocks for a moment."""
        credential = route.credential
        assert credential is not None
        return replace(route, credential=replace(credential, token=self._logins.cached()))

    def read(self, credential: Credential) -> SecretStr:
        """Return another token than the previous ones. Blocks its greenlet for minutes. Raises CredentialError."""
        assert credential.source == "login"
        return self._threads.call(self._logins.next)

    def close(self) -> None:
        """Cancel a login that is under way. Does not block."""
        self._cluster.cancel()
