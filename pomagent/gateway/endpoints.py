"""Facts and limits that belong to a gateway's address, whichever table of the configuration names it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pomagent.gateway.handshake_limit import HandshakeLimit
from pomagent.gateway.health import GatewayHealth
from pomagent.log.logger import Logger
from pomagent.settings import Gateway, HostPort


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The part of a gateway that tables with the same address share, and that a reload keeps."""

    health: GatewayHealth
    handshake_limit: HandshakeLimit


class Endpoints:
    """One endpoint per address in use."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._endpoints: dict[HostPort, Endpoint] = {}

    def adopt(self, gateways: Collection[Gateway]) -> None:
        """Forget addresses that no gateway has any more, and apply each address's largest ``max_dials``."""
        addresses = {gateway.address for gateway in gateways}
        for gone in [address for address in self._endpoints if address not in addresses]:
            self._endpoints.pop(gone).health.close()
        for gateway in sorted(gateways, key=lambda gateway: gateway.max_dials):
            self.of(gateway).handshake_limit.resize(gateway.max_dials)

    def of(self, gateway: Gateway) -> Endpoint:
        """Return the endpoint at a gateway's address."""
        if gateway.address not in self._endpoints:
            health = GatewayHealth(str(gateway.address), self._log)
            self._endpoints[gateway.address] = Endpoint(health, HandshakeLimit(gateway.max_dials))
        return self._endpoints[gateway.address]

    def close(self) -> None:
        """Stop the greenlets of all endpoints. Does not block."""
        for endpoint in self._endpoints.values():
            endpoint.health.close()
