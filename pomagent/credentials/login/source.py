"""The token of a person who has not named any: a cached one, else a login, started by the gateway's refusal alone."""

from __future__ import annotations

import time
from typing import Protocol

from pydantic import SecretStr

from pomagent.credentials.login.cache import TokenCache
from pomagent.errors import CredentialError, TunnelError
from pomagent.runtime.deadline import Clock
from pomagent.settings import HostPort

COOL_DOWN_S = 60.0
"""Between two browsers: an application that reconnects in a loop must not fill the screen."""
FRESH_S = 60.0
"""A login whose token is dead at this age was for nothing; after the second in a row there is no third."""

FRESH_IS_REFUSED = (
    "the gateway knows this login and refuses it for the route: it may belong to another identity provider, or its "
    "policy may ask for a device; another login cannot help"
)
"""Wire contract §2.2: the login's own endpoint serves the cluster's default identity provider only."""


class Edge(Protocol):
    """What a source asks the gateway; each raises TunnelError."""

    def log_in(self) -> SecretStr: ...
    def is_alive(self, token: SecretStr) -> bool: ...
    def cluster(self) -> tuple[str, str]: ...
    def pause(self) -> None: ...


class LoginSource:
    """Used by one thread at a time. What it has given out before was refused if it is asked again."""

    def __init__(self, gateway: HostPort, cache: TokenCache, edge: Edge, clock: Clock = time.monotonic) -> None:
        self._gateway = gateway
        self._cache = cache
        self._edge = edge
        self._clock = clock
        self._given: SecretStr | None = None
        self._refused: list[SecretStr] = []
        self._on_trial: SecretStr | None = None
        """Refused, and nobody has asked yet what is wrong with it."""
        self._began_at = float("-inf")
        self._got_at = float("-inf")
        self._dead_logins = 0
        self._verdict = ""

    def cached(self) -> SecretStr | None:
        """The token to begin with, without asking anybody."""
        kept = self._cache.find(self._gateway)
        self._given = kept[0].token if kept else None
        return self._given

    def next(self) -> SecretStr:
        """Another token than all that were refused; a login if there is no other way. Blocks. Raises CredentialError.

        Network errors touch nothing: neither a token nor the right to try again.
        """
        try:
            return self._give(self._another())
        except TunnelError as error:
            raise CredentialError(str(error)) from error
        except OSError as error:
            raise CredentialError(f"{self._cache.directory} cannot be used: {error.strerror}") from error

    def _another(self) -> SecretStr:
        if (refused := self._given) is not None:
            self._refused.append(refused)
            self._given, self._on_trial = None, refused
        if (newer := self._newer()) is not None:
            return newer
        self._judge()
        if (shared := self._from_sibling()) is not None:
            return shared
        self._check_cool_down()
        with self._cache.exclusive(self._gateway, self._edge.pause):
            return self._newer() or self._log_in()

    def _newer(self) -> SecretStr | None:
        """What another login has put into the cache meanwhile."""
        return next((k.token for k in self._cache.find(self._gateway) if k.token not in self._refused), None)

    def _judge(self) -> None:
        """Find out what is wrong with the token that was refused last: itself, or the route."""
        if self._verdict:
            raise CredentialError(self._verdict)
        if (token := self._on_trial) is None:
            return
        is_alive = self._edge.is_alive(token)
        self._on_trial = None
        if not is_alive:
            self._cache.forget(token)
            self._dead_logins = self._dead_logins + 1 if self._clock() - self._got_at < FRESH_S else 0
        if is_alive or self._dead_logins >= 2:
            self._verdict = FRESH_IS_REFUSED
            raise CredentialError(self._verdict)

    def _from_sibling(self) -> SecretStr | None:
        """A living token of the same cluster that was got by another of its names."""
        if not self._cache.all():
            return None
        issuer, idp_id = self._edge.cluster()
        for kept in self._cache.siblings(self._gateway, issuer, idp_id):
            if kept.token not in self._refused and self._edge.is_alive(kept.token):
                self._cache.keep(self._gateway, kept.token)
                return kept.token
        return None

    def _check_cool_down(self) -> None:
        left = self._began_at + COOL_DOWN_S - self._clock()
        if left > 0:
            raise CredentialError(f"a login began a moment ago and came to nothing; the next may begin in {left:.0f} s")

    def _log_in(self) -> SecretStr:
        self._began_at = self._clock()
        token = self._edge.log_in()
        self._got_at = self._clock()
        self._cache.keep(self._gateway, token)
        return token

    def _give(self, token: SecretStr) -> SecretStr:
        self._given, self._on_trial, self._verdict = token, None, ""
        return token
