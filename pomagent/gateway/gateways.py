"""Everything that routes share on the way to their gateways: TLS contexts, dialers, tokens, resolved names."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence

from pydantic import SecretStr

from pomagent.credentials.fetch import ReadToken
from pomagent.credentials.token import Token
from pomagent.credentials.tokens import Tokens
from pomagent.errors import ConfigError, Problem
from pomagent.gateway.dialer import Dialer
from pomagent.gateway.endpoints import Endpoints
from pomagent.gateway.health import GatewayHealth
from pomagent.gateway.tunnel_opener import TunnelOpener
from pomagent.log.logger import Logger
from pomagent.runtime.threads import Threads
from pomagent.settings import Credential, Gateway, Route, Settings, Trust
from pomagent.transport.resolver import Resolver
from pomagent.transport.stream import SCRATCH_BYTES
from pomagent.transport.tls_context import make_context

Contexts = dict[Trust, ssl.SSLContext]


class Gateways:
    """One dialer per gateway and one token per credential, however many routes share them."""

    def __init__(
        self, read_token: ReadToken, log: Logger, on_token: Callable[[Credential], None] = lambda _: None
    ) -> None:
        """``on_token`` is called when another token replaces one that was in use. It must not block."""
        self._resolver = Resolver()
        self._threads = Threads(1)
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._contexts: Contexts = {}
        self._dialers: dict[Gateway, Dialer] = {}
        self._endpoints = Endpoints(log)
        self._tokens = Tokens(read_token, log, on_token)

    def prepare(self, settings: Settings) -> Contexts:
        """Return the TLS contexts that ``settings`` need, and build missing ones in a thread.

        Nothing changes before ``adopt``. Blocks. Raises ConfigError.
        """
        needed = {trust: route.gateway.name for route in settings.routes for trust in _trusts(route.gateway)}
        missing = {trust: name for trust, name in needed.items() if trust not in self._contexts}
        made = self._threads.call(_make_contexts, missing, settings) if missing else {}
        return {trust: made.get(trust) or self._contexts[trust] for trust in needed}

    def adopt(self, settings: Settings, contexts: Contexts) -> None:
        """Switch to the prepared settings, and drop everything that no route uses any more. Does not block."""
        gateways = {route.gateway for route in settings.routes}
        self._contexts = contexts
        self._dialers = {gateway: dialer for gateway, dialer in self._dialers.items() if gateway in gateways}
        self._endpoints.adopt(gateways)
        self._tokens.keep_only({route.credential for route in settings.routes})

    def opener(self, route: Route, log: Logger) -> TunnelOpener:
        """Return an opener for the tunnels of a route in the adopted settings."""
        token = self._tokens.of(route.credential) if route.credential else None
        return TunnelOpener(route, self._dialer(route.gateway), token, log)

    def retry(self, routes: Sequence[Route]) -> None:
        """Forget failed addresses and failed token sources of these routes. Does not block."""
        for gateway in {route.gateway for route in routes}:
            if gateway in self._dialers:
                self._dialers[gateway].retry()
        self._tokens.retry({route.credential for route in routes})

    def health_of(self, gateway: Gateway) -> GatewayHealth:
        """Return the health of a gateway's address, which all its routes share."""
        return self._endpoints.of(gateway).health

    @property
    def dialers(self) -> list[Dialer]:
        """The dialers of all gateways in use, in no order."""
        return list(self._dialers.values())

    def token_of(self, credential: Credential) -> SecretStr | None:
        """Return what is presented for a credential now. None before its first token."""
        return self._tokens.value_of(credential)

    @property
    def tokens(self) -> list[Token]:
        """The tokens of all credentials in use, in no order."""
        return self._tokens.in_use

    def close(self) -> None:
        """Stop all greenlets and threads. Does not block."""
        self._resolver.close()
        self._endpoints.close()
        self._tokens.close()

    def _dialer(self, gateway: Gateway) -> Dialer:
        if gateway not in self._dialers:
            self._dialers[gateway] = self._new_dialer(gateway)
        return self._dialers[gateway]

    def _new_dialer(self, gateway: Gateway) -> Dialer:
        proxy = gateway.proxy
        proxy_context = self._contexts.get(proxy.trust) if proxy and proxy.scheme == "https" else None
        context = self._contexts.get(gateway.tunnel_trust) if gateway.tls else None
        endpoint = self._endpoints.of(gateway)
        return Dialer(
            gateway, context, self._resolver, self._scratch, proxy_context, endpoint.health, endpoint.handshake_limit
        )


def _trusts(gateway: Gateway) -> list[Trust]:
    """Return the trust of each TLS connection: the gateway's own, and that of an ``https`` forward proxy."""
    if gateway.problem:  # it is not dialed
        return []
    proxy = [gateway.proxy.trust] if gateway.proxy and gateway.proxy.scheme == "https" else []
    return [*([gateway.tunnel_trust] if gateway.tls else []), *proxy]


def _make_contexts(missing: dict[Trust, str], settings: Settings) -> Contexts:
    contexts, problems = {}, []
    for trust, name in missing.items():
        try:
            contexts[trust] = make_context(trust)
        except (OSError, ssl.SSLError) as error:
            problems.append(
                Problem(
                    settings.path, 0, f"gateways.{name}", f"its certificates cannot be used: {error}", may_pass=True
                )
            )
    if problems:
        raise ConfigError(problems)
    return contexts
