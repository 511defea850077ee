"""``pomagent routes``: lists the routes in the gateway's portal."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pomagent.cli.gateway_target import Target, ca_option, find_target, gateway_argument, give_up, token_of
from pomagent.cli.options import config_option
from pomagent.config.tables import default_name
from pomagent.errors import CredentialRejected, TunnelError
from pomagent.protocol.route_url import AddressError, RouteUrl, parse_route_url
from pomagent.settings import HostPort, StatusSettings

if TYPE_CHECKING:
    from pomagent.credentials.edge_api import PortalRoute

LOOPBACK = "127.0.0.1"
MAX_NAME_LENGTH = 60
FIRST_UNPRIVILEGED = 1024
_NOT_IN_NAMES = re.compile(r"[^a-z0-9_.-]+")


@click.command(short_help="List the routes in the portal of a gateway.")
@gateway_argument
@config_option
@ca_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.option("--toml", "as_toml", is_flag=True, help="Print [[routes]] for agent.toml, on free local ports.")
def routes(gateway: str | None, config: Path | None, ca_file: Path | None, as_json: bool, as_toml: bool) -> None:
    """List the routes that the portal of GATEWAY shows for its credential, or for the present login.

    The gateway's list is approximate: a listed route may still be denied, and an unlisted one may work.
    """
    if as_json and as_toml:
        raise click.UsageError("--json and --toml exclude each other")
    target = find_target(gateway, config, ca_file)
    listed = _ask(target)
    if as_json:
        click.echo(json.dumps({"gateway": str(target.gateway.address), "routes": [asdict(route) for route in listed]}))
    elif as_toml:
        click.echo(to_toml(listed, target, _is_free), nl=False)
    else:
        _print(listed)


def _ask(target: Target) -> list[PortalRoute]:
    from pomagent.credentials import edge_api  # noqa: PLC0415 - imports requests

    scheme = target.credential.scheme if target.credential else "pomerium"
    try:
        return edge_api.portal_routes(target.gateway, token_of(target), scheme=scheme)
    except CredentialRejected as error:
        give_up(f"{error}; run: pomagent login {target.gateway.name}")
    except TunnelError as error:
        give_up(error)


def _print(listed: list[PortalRoute]) -> None:
    rows = [("NAME", "TYPE", "FROM", "DESCRIPTION")]
    rows += [(route.name, route.type, route.url, route.description) for route in listed]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


# --- agent.toml -------------------------------------------------------------------------------------------------------


def to_toml(listed: Iterable[PortalRoute], target: Target, is_free: Callable[[int], bool]) -> str:
    """Return the TCP routes as TOML for ``agent.include``, with the gateway if agent.toml lacks it."""
    known = target.settings.routes if target.settings else ()
    names = {route.name for route in known}
    status = (target.settings.status if target.settings else StatusSettings()).listen
    ports = {listen.port for listen in [status, *(route.listen for route in known)] if isinstance(listen, HostPort)}
    tables = target.settings.gateways if target.settings else ()
    is_table = any(gateway.name == target.gateway.name for gateway, _ in tables)
    own = "" if is_table else _new_name("gateway", "gateway", {gateway.name for gateway, _ in tables})
    parts = [] if is_table else _gateway_tables(own, target)
    for route in listed:
        try:
            url = parse_route_url(route.url) if route.type == "tcp" else None
        except AddressError as error:
            parts.append(f"# left out: {_quoted(route.name)}: its address {error}")
            continue
        if url is None:
            parts.append(f"# left out: {_quoted(route.name)} has the type {_quoted(route.type)}")
            continue
        name = _new_name(route.name, default_name(url), names)
        port = _port(url, ports, is_free)
        parts.append(_route_table(name, route, port, target.gateway.name if is_table else own))
    return "\n\n".join(parts) + "\n"


def _gateway_tables(name: str, target: Target) -> list[str]:
    """Return the tables of a gateway given by its address, with a login as its credential."""
    from pomagent.credentials.edge_requests import url_of  # noqa: PLC0415 - imports requests

    lines = [f"[gateways.{name}]", f"url = {_quoted(url_of(target.gateway))}", f'credential = "{name}"']
    if target.gateway.trust.ca_file:
        lines.append(f"ca_file = {_quoted(str(target.gateway.trust.ca_file.absolute()))}")
    return ["\n".join(lines), f'[credentials.{name}]\nlogin = "browser"']


def _route_table(name: str, route: PortalRoute, port: int, gateway: str) -> str:
    lines = ["[[routes]]", f"name = {_quoted(name)}", f"from = {_quoted(route.url)}"]
    lines += [f'listen = "{LOOPBACK}:{port}"', f"gateway = {_quoted(gateway)}"]
    if route.description:
        lines.append(f"description = {_quoted(route.description)}")
    return "\n".join(lines)


def _new_name(preferred: str, default: str, taken: set[str]) -> str:
    """Return an unused name that is valid in agent.toml and similar to the preferred one."""
    name = _NOT_IN_NAMES.sub("-", preferred.lower()).strip("-_.")[:MAX_NAME_LENGTH] or default
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    taken.add(unique)
    return unique


def _port(url: RouteUrl, taken: set[int], is_free: Callable[[int], bool]) -> int:
    """Return the destination's port, or the next port that is free and unprivileged."""
    port = url.destination.port
    port += 0 if port >= FIRST_UNPRIVILEGED else 10_000
    while port in taken or not is_free(port):
        port = port + 1 if port < 65_535 else FIRST_UNPRIVILEGED
    taken.add(port)
    return port


def _is_free(port: int) -> bool:
    try:
        with socket.create_server((LOOPBACK, port)):
            return True
    except OSError:
        return False


def _quoted(text: str) -> str:
    """Return a TOML basic string: JSON's escapes are valid TOML, but DEL needs one more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
