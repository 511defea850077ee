"""Resolves the names of gateways and credentials, and the edges that routes imply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pomagent.config.messages import did_you_mean
from pomagent.config.mistakes import Mistakes
from pomagent.config.model import GatewayTable
from pomagent.config.tables import Entry, RouteEntry, Tables
from pomagent.protocol.route_url import CLEAR_TEXT, RouteUrl
from pomagent.settings import Credential, Gateway, HostPort

DEFAULT_CREDENTIAL = "default"


class References:
    """The gateways and credentials that routes can name. One that was reported as unusable is None."""

    def __init__(
        self,
        tables: Tables,
        gateways: Mapping[str, Gateway | None],
        credentials: Mapping[str, Credential | None],
        mistakes: Mistakes,
        *,
        is_complete: bool,
    ) -> None:
        self._tables = tables
        self._gateways = gateways
        self._credentials = credentials
        self._mistakes = mistakes
        self._is_complete = is_complete
        """False if a file could not be read: a missing name may be declared there."""
        self._implied: dict[HostPort, Gateway] = {}

    def check_gateways(self) -> None:
        """Report gateways with a credential that does not exist or does not fit."""
        for entry in self._tables.gateways.values():
            self._check_credential(entry, entry.table.credential, entry)

    def gateway(self, entry: RouteEntry, url: RouteUrl | None) -> Gateway | None:
        """Return the gateway that a route names, or else the edge that its ``from`` names."""
        name = entry.table.gateway
        if url and not url.edge.tls and not self._allows_clear_text(name):
            self._mistakes.problem(entry.place, "from", CLEAR_TEXT)
        if not name:
            return self._edge(url.edge.address) if url else None
        if self._is_missing(name, self._gateways):
            self._mistakes.problem(entry.place, "gateway", f"there is no such gateway{_instead(name, self._gateways)}")
        return self._gateways.get(name)

    def credential(self, entry: RouteEntry) -> Credential | None:
        """Return the credential of a route: its own, else its gateway's, else the one named "default"."""
        gateway = self._tables.gateways.get(entry.table.gateway)
        name = entry.table.credential
        if name is not None:
            self._check_credential(entry, name, gateway)
        elif gateway:
            name = gateway.table.credential
        return self._credentials.get(DEFAULT_CREDENTIAL if name is None else name)

    def credential_of(self, gateway: str) -> Credential | None:
        """Return the credential of a gateway's routes that name none."""
        name = self._tables.gateways[gateway].table.credential
        return self._credentials.get(DEFAULT_CREDENTIAL if name is None else name)

    def _edge(self, address: HostPort) -> Gateway:
        """Return the same object for all routes with the same edge."""
        if address not in self._implied:
            self._implied[address] = Gateway(name=str(address), address=address)
        return self._implied[address]

    def _allows_clear_text(self, gateway: str) -> bool:
        if gateway in self._tables.gateways:
            return self._tables.gateways[gateway].table.insecure_http
        return bool(gateway)  # that it does not exist is reported instead

    def _check_credential(
        self, entry: RouteEntry | Entry[GatewayTable], name: str | None, gateway: Entry[GatewayTable] | None
    ) -> None:
        if name and self._is_missing(name, self._credentials):
            message = f"there is no such credential{_instead(name, self._credentials)}"
            self._mistakes.problem(entry.place, "credential", message)
            return
        credential = self._tables.credentials.get(DEFAULT_CREDENTIAL if name is None else name)
        if not credential or not gateway or credential.table.scheme != "bearer":
            return
        if gateway.table.credential_header == "x-pomerium-authorization":
            message = (
                'has scheme = "bearer", but the gateway\'s credential_header = "x-pomerium-authorization" carries '
                "Pomerium tokens only"
            )
            self._mistakes.problem(entry.place, "credential", message)

    def _is_missing(self, name: str, known: Iterable[str]) -> bool:
        return name not in known and self._is_complete


def _instead(name: str, known: Mapping[str, object]) -> str:
    """Return the declared names. The wrong one is not repeated, because it may be a misplaced token."""
    if not known:
        return "; none is declared"
    return did_you_mean(name, known) or f"; declared: {', '.join(sorted(known)[:10])}"
