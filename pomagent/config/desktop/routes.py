"""Converts the connections of an export to routes and gateways: names, addresses, trust."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pomagent.config.desktop.export import Connection
from pomagent.config.desktop.listen import IS_CHOSEN, Addresses, read_listen
from pomagent.config.tables import default_name
from pomagent.protocol.route_url import (
    HTTP_PORT,
    HTTPS_PORT,
    AddressError,
    EdgeUrl,
    RouteUrl,
    parse_edge_url,
    parse_route_url,
)
from pomagent.settings import HostPort

MAX_NAME = 60
"""Maximum characters of a name derived from a connection's name, which can be any text."""
MAX_SHOWN = 200
"""Maximum characters of a text from the export in a comment or description."""
MAX_DEFAULT_NAME = 250
"""Maximum characters of a default name. The model's limit leaves room for a number."""


@dataclass(slots=True)
class Item:
    """One connection and the route that is made of it."""

    connection: Connection
    url: RouteUrl | None = None
    listen: HostPort | None = None
    name: str = ""
    gateway: str = ""
    comments: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        shown = printable(self.connection.name)
        return f'connection "{shown}"' if shown else f"connection {self.connection.index + 1}"

    def warn(self, message: str) -> None:
        self.comments.append(message)
        self.warnings.append(f"{self.label}: {message}")


@dataclass(slots=True)
class Gateway:
    """Connections that reach one edge in the same way, represented by the first."""

    name: str
    edge: EdgeUrl
    connection: Connection


def convert(connections: Iterable[Connection]) -> tuple[list[Item], list[Gateway]]:
    """Return the route of each connection and the gateways that the routes need."""
    items = [Item(connection) for connection in connections]
    for item in items:
        _read_address(item)
    routes = [item for item in items if item.url]
    _name(routes)
    _place(routes)
    return items, _share_gateways(routes)


def printable(text: str) -> str:
    """Return one line without control characters, which could affect a terminal or end a comment."""
    plain = "".join(character if character.isprintable() else " " for character in text[: 2 * MAX_SHOWN])
    return " ".join(plain.split())[:MAX_SHOWN]


def host_of(edge: EdgeUrl) -> str:
    """Return host and port of an edge, without the default port of its scheme."""
    default = HTTPS_PORT if edge.tls else HTTP_PORT
    return str(edge.address).removesuffix(f":{default}") if edge.address.port == default else str(edge.address)


def _read_address(item: Item) -> None:
    connection = item.connection
    if not connection.remote_addr:
        item.warn("left out: it has no remoteAddr")
    elif connection.protocol == "UDP" or connection.remote_addr.lower().startswith("udp+"):
        item.warn("left out: it is a UDP connection, which pomagent does not carry yet")
    elif connection.protocol != "TCP":
        item.warn(f"left out: its protocol is {printable(connection.protocol)}, which pomagent does not know")
    else:
        try:
            item.url = _route_url(connection)
        except AddressError as error:
            item.warn(f"left out: its address {error}")
    if item.connection.unknown:
        item.warn(f"ignored, as unknown: {', '.join(map(printable, item.connection.unknown[:10]))}")


def _route_url(connection: Connection) -> RouteUrl:
    """Parse both addresses as pomerium-cli does."""
    scheme, has_scheme, rest = connection.remote_addr.partition("://")
    is_short = has_scheme and "/" not in rest and scheme.lower() in {"https", "http"}
    url = parse_route_url(f"tcp+{connection.remote_addr}" if is_short else connection.remote_addr, clear_text=True)
    if not connection.pomerium_url:
        return url
    try:
        return replace(url, edge=parse_edge_url(connection.pomerium_url, ignore_path=True))
    except AddressError as error:
        raise AddressError(f"is behind a pomeriumUrl that {error}") from None


def _name(routes: Iterable[Item]) -> None:
    taken: dict[str, int] = {}
    for item in routes:
        assert item.url
        item.name = _unique(_slug(item.connection.name) or default_name(item.url)[:MAX_DEFAULT_NAME], taken)


def _place(routes: Sequence[Item]) -> None:
    """Assign requested addresses first, so that no other route gets them."""
    addresses = Addresses()
    for item in routes:
        wished, changed = read_listen(item.connection.listen_addr)
        if wished and (present := addresses.claim(wished, item.label)):
            changed = f"another address than Desktop's: {wished} belongs to {present}"
        elif wished:
            item.listen = wished
        if changed:
            item.warn(changed)
        elif not wished:
            item.comments.append(IS_CHOSEN)
    for item in routes:
        assert item.url
        item.listen = item.listen or addresses.choose(item.url.destination, item.label)


def _share_gateways(routes: Iterable[Item]) -> list[Gateway]:
    """Return a table for each edge that a route's ``from`` cannot describe. Routes with the same trust share it."""
    shared: dict[object, Gateway] = {}
    taken: dict[str, int] = {}
    for item in routes:
        assert item.url
        edge, connection = item.url.edge, item.connection
        if edge.tls and not _is_special(connection):
            continue
        identity = (edge, *(_identity(connection) if edge.tls else ()))
        if identity not in shared:
            shared[identity] = Gateway(_unique(_slug(host_of(edge)) or "gateway", taken), edge, connection)
            item.warnings += [f"{item.label}: {warning}" for warning in _gateway_warnings(edge, connection)]
        item.gateway = shared[identity].name
    return list(shared.values())


def _is_special(connection: Connection) -> bool:
    return _identity(connection) != _identity(Connection(0))


def _identity(connection: Connection) -> tuple[object, ...]:
    blobs = (connection.ca_cert, connection.client_cert, connection.client_key)
    verifies = connection.verify_tls or connection.ca_cert is not None  # both exclude each other; the safe one wins
    return (verifies, connection.is_cert_from_store, *(blob and blob.digest for blob in blobs))


def _gateway_warnings(edge: EdgeUrl, connection: Connection) -> Iterator[str]:
    if not edge.tls:
        yield "its gateway is http://: the token travels in clear text"
        return
    if connection.ca_cert or connection.client_cert or connection.client_key:
        yield "its certificates are not imported; see the comments at its gateway"
    if connection.is_cert_from_store:
        yield "its client certificate is in a system's store; see the comments at its gateway"
    if not connection.verify_tls and not connection.ca_cert:
        yield "its gateway is not verified: any host on the path can take the token"


def _unique(name: str, taken: dict[str, int]) -> str:
    """Return the name, with the first number that makes it unique if it is taken."""
    candidate = name
    while candidate in taken:
        taken[name] += 1
        candidate = f"{name}-{taken[name]}"
    taken[candidate] = 1
    return candidate


def _slug(text: str) -> str:
    """Return a text as a valid name: "Orders DB (prod)" becomes orders-db-prod."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9._]+", "-", plain)[:MAX_NAME].strip("-_.")
