"""Asks gateways at intervals whether the tokens in use are still valid, and ends the sessions of a revoked one.

A gateway checks a token only when a tunnel is opened (wire contract §2.3). Only its own "not logged in" counts as a
revocation, once for each token and gateway. Any other answer, and a missing one, changes nothing. A revoked token is
still asked about, so that every route heals when it is accepted again.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterable

import gevent
from gevent.pool import Group, Pool
from pydantic import SecretStr

from pomagent.errors import CredentialRejected, TunnelError
from pomagent.forwarder import Forwarder
from pomagent.gateway.tunnel import Presented
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.threads import Threads
from pomagent.settings import Credential, HostPort, Settings

AT_A_TIME = 4
"""Maximum requests at a time. A gateway that does not answer occupies one for some seconds."""

Ask = Callable[[Presented], object]
"""Ask a token's gateway whether it is valid. Blocks its thread. Raises CredentialRejected or another TunnelError."""
_Key = tuple[str, HostPort, SecretStr]
"""Name of the credential, address of the gateway, and token."""


class Revocation:
    """Runs one greenlet for each credential with ``recheck_s``."""

    def __init__(
        self, forwarders: Callable[[], Iterable[Forwarder]], token_of: Callable[[Credential], SecretStr | None],
        log: Logger, ask: Ask | None = None,
    ) -> None:  # fmt: skip
        """``forwarders`` returns all with sessions, even of removed routes. ``token_of`` returns the current token."""
        self._forwarders = forwarders
        self._token_of = token_of
        self._log = log
        self._ask = ask or _ask_edge
        self._threads = Threads(AT_A_TIME)
        self._checkers: dict[tuple[str, float], Group] = {}
        self._unanswered: set[_Key] = set()
        self._revoked: set[_Key] = set()

    def follow(self, settings: Settings) -> None:
        """Use the intervals of these settings from now on. Does not block.

        Sessions of a credential that is no longer in the settings keep the interval that they were opened with.
        """
        credentials = {route.credential for route in settings.enabled_routes if route.credential}
        names = {credential.name for credential in credentials}
        in_use = {credential for forwarder in self._forwarders() for credential in _credentials_of(forwarder)}
        credentials |= {credential for credential in in_use if credential.name not in names}
        intervals = {(credential.name, credential.recheck_s) for credential in credentials if credential.recheck_s}
        for key in self._checkers.keys() - intervals:
            self._checkers.pop(key).kill(block=False)
        for key in intervals - self._checkers.keys():
            group = self._checkers[key] = Group()
            group.spawn(self._keep_checking, *key).name = f"credential {key[0]}: recheck"

    def close(self) -> None:
        for group in self._checkers.values():
            group.kill(block=False)
        self._checkers.clear()

    def _keep_checking(self, name: str, every_s: float) -> None:
        next_at = time.monotonic()
        while True:
            next_at = max(time.monotonic(), next_at + every_s * random.uniform(0.9, 1.0))  # noqa: S311 - only spreads the requests
            gevent.sleep(next_at - time.monotonic())
            try:
                self.check(name)
            except Exception:  # noqa: BLE001 - the crash boundary of this greenlet: a bug costs one check, not all
                gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())

    def check(self, name: str) -> None:
        """Check every token of a credential that a session or the next tunnel depends on. Blocks."""
        forwarders = list(self._forwarders())
        found: dict[_Key, Presented] = {}
        for forwarder in forwarders:
            for presented in self._tokens_in_use(forwarder, name):
                found[name, presented.gateway.address, presented.token] = presented
        checks = Pool(AT_A_TIME)
        for key, presented in found.items():
            checks.spawn(
                self._check_token, key, presented, forwarders
            ).name = f"credential {name}: recheck of one token"
        try:
            checks.join()
        finally:
            checks.kill(block=False)
        for verdicts in (self._unanswered, self._revoked):
            verdicts -= {key for key in verdicts if key[0] == name and key not in found}

    def _tokens_in_use(self, forwarder: Forwarder, name: str) -> Iterable[Presented]:
        """Return the tokens that opened its sessions, and the next tunnel's.

        A session depends on the credential that opened it, even if its route has another one since.
        """
        yield from (presented for presented in forwarder.presented if presented.credential.name == name)
        credential = forwarder.route.credential
        if credential is None or credential.name != name:
            return
        token = self._token_of(credential)
        if token:
            yield Presented(forwarder.route.gateway, credential, token)

    def _check_token(self, key: _Key, presented: Presented, forwarders: list[Forwarder]) -> None:
        fields = {"credential": presented.credential.name, "gateway": str(presented.gateway.address)}
        try:
            self._threads.call(self._ask, presented)
        except CredentialRejected as error:
            is_known = key in self._revoked
            self._revoked.add(key)
            count = sum(forwarder.end_revoked(presented) for forwarder in forwarders)
            for forwarder in forwarders:
                if self._presents(forwarder, presented) and not (is_known and forwarder.last_error):
                    forwarder.distrust(error)
            if count or not is_known:
                self._log.error(
                    events.CREDENTIAL_REVOKED, **fields, sessions=count, status=error.status,
                    request_id=error.request_id, error=str(error),
                )  # fmt: skip
        except TunnelError as error:
            if key not in self._unanswered:
                self._log.warning(events.CREDENTIAL_UNCHECKED, **fields, error=str(error))
            self._unanswered.add(key)
            return
        else:
            if key in self._revoked:
                self._readmit(key, presented, forwarders)
        self._unanswered.discard(key)

    def _readmit(self, key: _Key, presented: Presented, forwarders: list[Forwarder]) -> None:
        """End the revoked state of every route that presents the token, whatever the route keeps warm."""
        self._revoked.discard(key)
        self._log.info(
            events.CREDENTIAL_READMITTED, credential=presented.credential.name, gateway=str(presented.gateway.address)
        )
        for forwarder in forwarders:
            if self._presents(forwarder, presented):
                forwarder.trust()

    def _presents(self, forwarder: Forwarder, presented: Presented) -> bool:
        """Return whether the next tunnel of the route presents this token to this gateway."""
        route = forwarder.route
        is_current = route.credential is not None and self._token_of(route.credential) == presented.token
        return is_current and route.gateway.address == presented.gateway.address


def _credentials_of(forwarder: Forwarder) -> Iterable[Credential]:
    """Return the credentials that its sessions were opened with."""
    return (presented.credential for presented in forwarder.presented)


def _ask_edge(presented: Presented) -> None:
    from pomagent.credentials import edge_api  # noqa: PLC0415 - imports requests, which is needed for rechecks only

    edge_api.user(presented.gateway, presented.token, scheme=presented.credential.scheme)
