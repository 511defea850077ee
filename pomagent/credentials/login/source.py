"""Decides between a cached token and a login if the user names no token. Only a refusal starts a login."""

from __future__ import annotations

import time
from typing import Protocol

from pydantic import SecretStr

from pomagent.credentials.login.cache import TokenCache
from pomagent.errors import CredentialError, TunnelError
from pomagent.runtime.deadline import Clock
from pomagent.settings import HostPort

COOL_DOWN_S = 60.0
"""Minimum seconds between two logins, so that an application that reconnects in a loop does not fill the screen."""
FRESH_S = 60.0
"""Seconds of age up to which a dead token means a useless login. After two in a row there is no third."""

FRESH_IS_REFUSED = (
    "another login cannot help: the gateway knows this one and refuses it for the route, which may need another "
    "identity provider or, by policy, a device"
)
"""The verdict on a living token. The login serves the cluster's default identity provider only (wire contract §2.2)."""


class Cluster(Protocol):
    """The gateway and its login, as a source needs them. Each method raises TunnelError."""

    def log_in(self) -> SecretStr: ...
    def is_alive(self, token: SecretStr) -> bool: ...
    def identity(self) -> tuple[str, str]: ...
    def pause(self) -> None: ...


class LoginSource:
    """Supplies tokens to one thread at a time. Each further request means that the previous token was refused."""

    def __init__(self, gateway: HostPort, cache: TokenCache, cluster: Cluster, clock: Clock = time.monotonic) -> None:
        self._gateway = gateway
        self._cache = cache
        self._cluster = cluster
        self._clock = clock
        self._given: SecretStr | None = None
        self._refused: list[SecretStr] = []
        self._on_trial: SecretStr | None = None
        """A refused token that the gateway has not been asked about yet."""
        self._began_at = float("-inf")
        self._obtained_at = float("-inf")
        self._dead_logins = 0
        self._verdict = ""

    def cached(self) -> SecretStr | None:
        """Return the newest cached token without a request to the gateway."""
        found = self._cache.find(self._gateway)
        self._given = found[0].token if found else None
        return self._given

    def next(self) -> SecretStr:
        """Return a token that was not refused, from a login if necessary. Blocks. Raises CredentialError.

        A network error changes nothing: it neither removes a token nor delays the next attempt.
        """
        try:
            return self._give(self._another())
        except TunnelError as error:
            raise CredentialError(str(error)) from error
        except OSError as error:
            raise CredentialError(
                f"make {self._cache.directory} a private, writable directory; it cannot be used: {error.strerror}"
            ) from error

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
        with self._cache.exclusive(self._gateway, self._cluster.pause):
            return self._newer() or self._log_in()

    def _newer(self) -> SecretStr | None:
        """Return a token that another login has put into the cache meanwhile."""
        found = self._cache.find(self._gateway)
        return next((cached.token for cached in found if cached.token not in self._refused), None)

    def _judge(self) -> None:
        """Find out whether the last refused token is dead, or alive and useless here. Raises CredentialError."""
        if self._verdict:
            raise CredentialError(self._verdict)
        if (token := self._on_trial) is None:
            return
        is_alive = self._cluster.is_alive(token)
        self._on_trial = None
        if not is_alive:
            self._cache.forget(token)
            self._dead_logins = self._dead_logins + 1 if self._clock() - self._obtained_at < FRESH_S else 0
        if is_alive or self._dead_logins >= 2:
            self._verdict = FRESH_IS_REFUSED
            raise CredentialError(self._verdict)

    def _from_sibling(self) -> SecretStr | None:
        """Return a living token of the same cluster from a login at another of its names."""
        if not self._cache.all():
            return None
        issuer, idp_id = self._cluster.identity()
        for sibling in self._cache.siblings(self._gateway, issuer, idp_id):
            if sibling.token not in self._refused and self._cluster.is_alive(sibling.token):
                self._cache.store(self._gateway, sibling.token)
                return sibling.token
        return None

    def _check_cool_down(self) -> None:
        left_s = self._began_at + COOL_DOWN_S - self._clock()
        if left_s > 0:
            raise CredentialError(f"try again in {left_s:.0f} s; a login failed a moment ago")

    def _log_in(self) -> SecretStr:
        self._began_at = self._clock()
        token = self._cluster.log_in()
        self._obtained_at = self._clock()
        self._cache.store(self._gateway, token)
        return token

    def _give(self, token: SecretStr) -> SecretStr:
        self._given, self._on_trial, self._verdict = token, None, ""
        return token
