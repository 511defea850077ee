"""The token of whoever runs ``pomagent tcp``: of an earlier login, or of one that a refusal starts; off the hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from pydantic import SecretStr

from pomagent.credentials.login.cluster_login import People
from pomagent.credentials.login.flow import Report, Way
from pomagent.credentials.login.source import LoginSource
from pomagent.credentials.login.stored import user_cache
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.threads import Threads
from pomagent.settings import Credential, Gateway, Route


class PersonalTokens:
    """One gateway's."""

    def __init__(
        self, gateway: Gateway, way: Way, say: Callable[[str], None], environ: Mapping[str, str], log: Logger
    ) -> None:
        self._threads = Threads(1)

        def forgery(why: str) -> None:
            log.warning(events.CALLBACK_REFUSED, why=why)
            if not log.is_enabled_for("warning"):  # on standard input and output the log is silent
                say(f"refused a forged callback: {why}")

        report = Report(say, forgery)
        self._people = People(gateway, way, report, environ)
        self._logins = LoginSource(gateway.address, user_cache(environ), self._people)

    def seeded(self, route: Route) -> Route:
        """The route with the token of an earlier login, if there was one. Blocks for a moment."""
        credential = route.credential
        assert credential is not None
        return replace(route, credential=replace(credential, token=self._logins.cached()))

    def read(self, credential: Credential) -> SecretStr:
        """Another token than those before. Blocks its greenlet, for minutes. Raises CredentialError."""
        assert credential.source == "login"
        return self._threads.call(self._logins.next)

    def close(self) -> None:
        """Give up a login that is under way. Does not block."""
        self._people.cancel()
