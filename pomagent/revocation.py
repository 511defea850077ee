"""Asks gateways again and again whether the tokens at work are still good, and ends what a revoked one has opened.

A gateway looks at a token once, when a tunnel is opened; this is what it does not do (wire contract §2.3). Only its own
"not logged in" counts: whatever else it answers, and no answer at all, touches nothing.
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
"""Requests: a gateway that does not answer holds one for some seconds."""

Ask = Callable[[Presented], object]
"""Asks a token's gateway about it. Blocks its thread. Raises CredentialRejected, or any other TunnelError."""
_Key = tuple[HostPort, SecretStr]


class Revocation:
    """One greenlet for each credential with ``recheck_s``."""

    def __init__(
        self, forwarders: Callable[[], Iterable[Forwarder]], token_of: Callable[[Credential], SecretStr | None],
        log: Logger, ask: Ask | None = None,
    ) -> None:  # fmt: skip
        """``forwarders`` are all that have sessions, those of removed routes too; ``token_of`` is what is sent now."""
        self._forwarders = forwarders
        self._token_of = token_of
        self._log = log
        self._ask = ask or _ask_edge
        self._threads = Threads(AT_A_TIME)
        self._askers: dict[tuple[str, float], Group] = {}
        self._unanswered: set[_Key] = set()

    def follow(self, settings: Settings) -> None:
        """Go by these settings from now on, and for sessions of a credential that is in none of them by its own.

        Does not block.
        """
        credentials = {route.credential for route in settings.enabled_routes if route.credential}
        names = {credential.name for credential in credentials}
        credentials |= {c for f in self._forwarders() for c in _behind(f) if c.name not in names}
        wanted = {(credential.name, credential.recheck_s) for credential in credentials if credential.recheck_s}
        for key in self._askers.keys() - wanted:
            self._askers.pop(key).kill(block=False)
        for key in wanted - self._askers.keys():
            group = self._askers[key] = Group()
            group.spawn(self._keep_asking, *key).name = f"credential {key[0]}: recheck"

    def close(self) -> None:
        for group in self._askers.values():
            group.kill(block=False)
        self._askers.clear()

    def _keep_asking(self, name: str, every_s: float) -> None:
        next_at = time.monotonic()
        while True:
            next_at = max(time.monotonic(), next_at + every_s * random.uniform(0.9, 1.0))  # noqa: S311 - spreads only
            gevent.sleep(next_at - time.monotonic())
            try:
                self.look(name)
            except Exception:  # noqa: BLE001 - the crash boundary of this greenlet: a bug costs one look, not all
                gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())

    def look(self, name: str) -> None:
        """Ask about every token of a credential that something depends on. Blocks."""
        forwarders = list(self._forwarders())
        at_stake: dict[_Key, Presented] = {}
        for forwarder in forwarders:
            for presented in self._at_stake(forwarder, name):
                at_stake[presented.gateway.address, presented.token] = presented
        asking = Pool(AT_A_TIME)
        for key, presented in at_stake.items():
            asking.spawn(self._look_at, key, presented, forwarders).name = f"credential {name}: recheck of one token"
        try:
            asking.join()
        finally:
            asking.kill(block=False)
        self._unanswered &= at_stake.keys()

    def _at_stake(self, forwarder: Forwarder, name: str) -> Iterable[Presented]:
        """What its sessions were opened with, and what the next one would be unless that is known to be in vain.

        A session depends on the credential that opened it, whichever its route has had since.
        """
        yield from (presented for presented in forwarder.presented if presented.credential.name == name)
        credential = forwarder.route.credential
        if credential is None or credential.name != name:
            return
        token = self._token_of(credential)
        if token and forwarder.state != "unauthenticated":
            yield Presented(forwarder.route.gateway, credential, token)

    def _look_at(self, key: _Key, presented: Presented, forwarders: list[Forwarder]) -> None:
        named = {"credential": presented.credential.name, "gateway": str(presented.gateway.address)}
        try:
            self._threads.call(self._ask, presented)
        except CredentialRejected as error:
            count = sum(self._revoke(forwarder, presented, error) for forwarder in forwarders)
            self._log.error(
                events.CREDENTIAL_REVOKED, **named, sessions=count, status=error.status, request_id=error.request_id,
                error=str(error),
            )  # fmt: skip
        except TunnelError as error:
            if key not in self._unanswered:
                self._log.warning(events.CREDENTIAL_UNCHECKED, **named, error=str(error))
            self._unanswered.add(key)
            return
        self._unanswered.discard(key)

    def _revoke(self, forwarder: Forwarder, presented: Presented, error: CredentialRejected) -> int:
        ended = forwarder.end_revoked(presented)
        route = forwarder.route
        is_its_own = route.credential is not None and self._token_of(route.credential) == presented.token
        if is_its_own and route.gateway.address == presented.gateway.address:
            forwarder.distrust(error)
        return ended


def _behind(forwarder: Forwarder) -> Iterable[Credential]:
    """The credentials that its sessions were opened with."""
    return (presented.credential for presented in forwarder.presented)


def _ask_edge(presented: Presented) -> None:
    from pomagent.credentials import edge_api  # noqa: PLC0415 - who rechecks nothing needs no requests

    edge_api.user(presented.gateway, presented.token, scheme=presented.credential.scheme)
