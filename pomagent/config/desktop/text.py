"""Writes imported routes as TOML.

Texts of the export (names, tags) are made printable and quoted. Certificates and keys are never written: a comment
describes how to provide them, and until then the gateway is not trusted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pomagent.config.desktop.export import Blob, Connection
from pomagent.config.desktop.routes import Gateway, Item, convert, host_of, printable
from pomagent.protocol.route_url import HTTPS_PORT, EdgeUrl
from pomagent.settings import HostPort

HEADER = """\
# Imported from Pomerium Desktop by `pomagent import`.
#
# Desktop signs a person in with the browser. A service has its own token:
# [credentials.default]
# service_account_file = "/etc/pomagent/bastion.jwt"
"""
EMPTY = "[agent]\nallow_empty = true   # nothing was imported; without this line a file without routes is refused\n"


@dataclass(frozen=True, slots=True)
class Imported:
    """An ``agent.toml``, and warnings for the operator."""

    text: str
    routes: int
    left_out: int
    warnings: tuple[str, ...]


def to_toml(connections: Sequence[Connection]) -> Imported:
    """Return all connections as TOML. Those that cannot be routes become comments."""
    items, gateways = convert(connections)
    routes = sum(item.url is not None for item in items)
    parts = [HEADER, *([] if routes else [EMPTY]), *map(_gateway_table, gateways), *map(_route_table, items)]
    return Imported(
        text="\n".join(parts),
        routes=routes,
        left_out=len(items) - routes,
        warnings=tuple(warning for item in items for warning in item.warnings),
    )


def _gateway_table(gateway: Gateway) -> str:
    lines = [f"[gateways.{_key(gateway.name)}]", f"url = {_quoted(_url(gateway.edge))}"]
    if not gateway.edge.tls:
        return _joined([*lines, "insecure_http = true   # as in Desktop: the token travels in clear text"])
    connection = gateway.connection
    if connection.ca_cert:
        lines += [
            "# Desktop trusted a CA certificate of its own beside the system's; ca_file is trusted in place of them:",
            *_extraction("ca_file", connection.ca_cert, f"{gateway.name}-ca.pem"),
        ]
    elif not connection.verify_tls:
        lines.append("verify_tls = false   # as in Desktop: any host on the path can take the token")
    if connection.client_cert:
        lines += ["# Desktop had a client certificate:"]
        lines += _extraction("client_cert_file", connection.client_cert, f"{gateway.name}.pem")
    if connection.client_key:
        lines += ["# and its private key, a secret, not to be readable by others:"]
        lines += _extraction("client_key_file", connection.client_key, f"{gateway.name}.key")
    if connection.is_cert_from_store:
        lines += [
            "# Desktop took a client certificate from its system's store; export it with its key as PEM:",
            f"# client_cert_file = {_quoted(gateway.name + '.pem')}",
            f"# client_key_file = {_quoted(gateway.name + '.key')}",
        ]
    return _joined(lines)


def _extraction(key: str, blob: Blob, file: str) -> list[str]:
    return [
        f"#   (umask 077; jq -r '{blob.where}' EXPORT.json | base64 -d > {file})",
        f"# {key} = {_quoted(file)}",
    ]


def _route_table(item: Item) -> str:
    comments = [f"# {comment}" for comment in item.comments]
    if not item.url:
        return _joined([f"# {item.label}", *comments])
    shown = printable(item.connection.name)
    tags = list(dict.fromkeys(tag for tag in map(printable, item.connection.tags) if tag))
    keys = {
        "name": item.name,
        "from": _from(item),
        "listen": str(item.listen),
        "gateway": item.gateway,
        "tags": tags,
        "description": shown if shown != item.name else "",
    }
    return _joined([*comments, "[[routes]]", *(f"{key} = {_quoted(value)}" for key, value in keys.items() if value)])


def _from(item: Item) -> str:
    assert item.url
    destination, edge = item.url.destination, item.url.edge.address
    if item.gateway or edge == HostPort(destination.host, HTTPS_PORT):
        return f"tcp+https://{destination}"
    return f"tcp+{_url(item.url.edge)}/{destination}"


def _url(edge: EdgeUrl) -> str:
    return f"{'https' if edge.tls else 'http'}://{host_of(edge)}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[a-z0-9_-]+", name) else _quoted(name)


def _quoted(value: object) -> str:
    """Return a printable string, or a list of them, as JSON, which is also valid TOML."""
    return json.dumps(value, ensure_ascii=False)


def _joined(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
