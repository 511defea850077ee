"""Everything that leads to gateways, shared by the routes that use it: trust, dialers, tokens, names."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace

from pydantic import SecretStr

from pomagent.credentials.fetch import ReadToken
from pomagent.credentials.token import Token
from pomagent.errors import ConfigError, Problem
from pomagent.gateway.dialer import Dialer
from pomagent.gateway.handshake_limit import HandshakeLimit
from pomagent.gateway.health import GatewayHealth
from pomagent.gateway.tunnel_opener import TunnelOpener
from pomagent.log.logger import Logger
from pomagent.runtime.greenlets import GreenletReuse
from pomagent.runtime.threads import Threads
from pomagent.settings import Credential, Gateway, HostPort, Route, Settings, Trust
from pomagent.transport.resolver import Resolver
from pomagent.transport.stream import SCRATCH_BYTES
from pomagent.transport.tls_context import make_context

Contexts = dict[Trust, ssl.SSLContext]


class Gateways:
    """One dialer per gateway and one token per credential, however many routes share them."""

    def __init__(
        self,
        read_token: ReadToken,
        log: Logger,
        greenlets: GreenletReuse,
        on_token: Callable[[Credential], None] = lambda _: None,
    ) -> None:
        """``greenlets`` dials; ``on_token`` is told when a credential has got another token than the one in use."""
        self._greenlets = greenlets
        self._on_token = on_token
        self._read_token = read_token
        self._log = log
        self._resolver = Resolver()
        self._threads = Threads(1)
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._contexts: Contexts = {}
        self._dialers: dict[Gateway, Dialer] = {}
        self._gates: dict[HostPort, HandshakeLimit] = {}
        self._watches: dict[HostPort, GatewayHealth] = {}
        self._tokens: dict[Credential, Token] = {}

    def prepare(self, settings: Settings) -> Contexts:
        """Build, off the hub, what ``settings`` need and nobody has yet; nothing changes before ``adopt``.

        Blocks. Raises ConfigError.
        """
        wanted = {trust: route.gateway.name for route in settings.routes for trust in _trusts(route.gateway)}
        missing = {trust: name for trust, name in wanted.items() if trust not in self._contexts}
        made = self._threads.call(_make_contexts, missing, settings) if missing else {}
        return {trust: made.get(trust) or self._contexts[trust] for trust in wanted}

    def adopt(self, settings: Settings, contexts: Contexts) -> None:
        """Go over to what was prepared, and forget what no route uses any more. Does not block."""
        self._contexts = contexts
        gateways = {route.gateway for route in settings.routes}
        credentials = {route.credential for route in settings.routes}
        self._dialers = {gateway: dialer for gateway, dialer in self._dialers.items() if gateway in gateways}
        addresses = {gateway.address for gateway in gateways}
        for gone in [address for address in self._watches if address not in addresses]:
            self._watches.pop(gone).close()
        self._gates = {address: gate for address, gate in self._gates.items() if address in addresses}
        for gateway in sorted(gateways, key=lambda gateway: gateway.max_dials):  # an address has its largest in the end
            self._gate(gateway).resize(gateway.max_dials)
        for old in [credential for credential in self._tokens if credential not in credentials]:
            token = self._tokens.pop(old)
            heir = next((new for new in credentials if new and replace(new, recheck_s=old.recheck_s) == old), None)
            if heir is None:
                token.close()
            else:
                token.credential, self._tokens[heir] = heir, token

    def connector(self, route: Route, log: Logger) -> TunnelOpener:
        """How the tunnels of a route through a gateway of the adopted settings are opened."""
        token = self._token(route.credential) if route.credential else None
        return TunnelOpener(route, self._dialer(route.gateway), token, log)

    def retry(self, routes: Sequence[Route]) -> None:
        """Forget what has failed on the way of these routes: addresses, sources of tokens. Does not block."""
        for gateway in {route.gateway for route in routes}:
            if gateway in self._dialers:
                self._dialers[gateway].retry()
        for credential in {route.credential for route in routes}:
            if credential in self._tokens:
                self._tokens[credential].retry()

    def _dialer(self, gateway: Gateway) -> Dialer:
        if gateway not in self._dialers:
            self._dialers[gateway] = self._new_dialer(gateway)
        return self._dialers[gateway]

    def _new_dialer(self, gateway: Gateway) -> Dialer:
        proxy = gateway.proxy
        proxy_context = self._contexts.get(proxy.trust) if proxy and proxy.scheme == "https" else None
        context = self._contexts.get(gateway.tunnel_trust) if gateway.tls else None
        return Dialer(
            gateway, context, self._resolver, self._scratch, proxy_context, self.watch(gateway), self._gate(gateway)
        )

    def _gate(self, gateway: Gateway) -> HandshakeLimit:
        """Of all tables with the gateway's address, and of what a reload changes in them."""
        if gateway.address not in self._gates:
            self._gates[gateway.address] = HandshakeLimit(gateway.max_dials)
        return self._gates[gateway.address]

    def watch(self, gateway: Gateway) -> GatewayHealth:
        """What all routes of a gateway notice together."""
        if gateway.address not in self._watches:
            self._watches[gateway.address] = GatewayHealth(str(gateway.address), self._log)
        return self._watches[gateway.address]

    @property
    def dialers(self) -> list[Dialer]:
        """Of the gateways in use, in no order."""
        return list(self._dialers.values())

    def token_of(self, credential: Credential) -> SecretStr | None:
        """What is presented for a credential now."""
        token = self._tokens.get(credential)
        return token.value if token else None

    @property
    def tokens(self) -> list[Token]:
        """Those in use, in no order."""
        return list(self._tokens.values())

    def close(self) -> None:
        self._resolver.close()
        for watch in self._watches.values():
            watch.close()
        for token in self._tokens.values():
            token.close()

    def _token(self, credential: Credential) -> Token:
        if credential not in self._tokens:
            token = self._tokens[credential] = Token(credential, self._read_token, self._log, self._on_token)
            token.start()
        return self._tokens[credential]


def _trusts(gateway: Gateway) -> list[Trust]:
    """What its TLS connections are made of: with the gateway itself, and with an ``https`` proxy before it."""
    proxy = [gateway.proxy.trust] if gateway.proxy and gateway.proxy.scheme == "https" else []
    return [*([gateway.tunnel_trust] if gateway.tls else []), *proxy]


def _make_contexts(missing: dict[Trust, str], settings: Settings) -> Contexts:
    contexts, problems = {}, []
    for trust, name in missing.items():
        try:
            contexts[trust] = make_context(trust)
        except (OSError, ssl.SSLError) as error:
            problems.append(Problem(settings.path, 0, f"gateways.{name}", f"its certificates cannot be used: {error}"))
    if problems:
        raise ConfigError(problems)
    return contexts
