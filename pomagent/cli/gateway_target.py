"""Finds the gateway that a command names, and the token to present there."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click
from pydantic import SecretStr

from pomagent.cli.completion import gateway_names
from pomagent.cli.options import Decorator, config_path
from pomagent.config.load import load
from pomagent.config.secrets import read_token
from pomagent.errors import ConfigError, CredentialError, TunnelError
from pomagent.protocol.route_url import AddressError, EdgeUrl, parse_edge_url, parse_host_port
from pomagent.runtime.exit_codes import CANNOT_SERVE
from pomagent.settings import Credential, Gateway, Settings, Trust

_PEM = click.Path(path_type=Path, dir_okay=False, exists=True)

gateway_argument: Decorator = click.argument(
    "gateway", required=False, metavar="[GATEWAY]", shell_complete=gateway_names
)
ca_option: Decorator = click.option(
    "--alternate-ca-path", "ca_file", type=_PEM, metavar="FILE",
    help="CA certificates to trust instead of the system's, for a GATEWAY that is not in agent.toml.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway from agent.toml, or one given by its address."""

    gateway: Gateway
    credential: Credential | None = None
    settings: Settings | None = None
    """None for a gateway given by its address."""

    @property
    def is_for_login(self) -> bool:
        """Whether a route of agent.toml needs a login at this gateway."""
        routes = self.settings.routes if self.settings else ()
        return any(
            route.gateway.name == self.gateway.name and route.credential and route.credential.source == "login"
            for route in routes
        )


def find_target(name: str | None, config: Path | None, ca_file: Path | None) -> Target:
    """Return the gateway for a name in agent.toml, for an address, or the only one. Raises UsageError."""
    address = _address(name) if name else None
    settings = _settings(config, is_needed=address is None)
    known = _known(settings) if settings else {}
    if address is not None and name not in known:  # agent.toml may have a name for this address
        name = next((known_name for known_name, (g, _) in known.items() if g.address == address.address), name)
    if name in known and not ca_file:
        return Target(*known[name], settings)
    if address is not None:
        where = str(address.address)
        return Target(Gateway(where, address.address, address.tls, trust=Trust(ca_file=ca_file)))
    if name:
        raise click.UsageError(f"no gateway is named {name}{_choices(known)}")
    return Target(*_only(known, settings), settings)


def token_of(target: Target) -> SecretStr:
    """Return the target's token, else that of this user's last login, or exit with 69 if there is none. Blocks."""
    from pomagent.credentials.command import run_command  # noqa: PLC0415
    from pomagent.credentials.login.cluster_login import cluster_of  # noqa: PLC0415 - imports requests
    from pomagent.credentials.login.stored import user_cache  # noqa: PLC0415

    credential = target.credential
    try:
        if credential and credential.source == "command":
            return run_command(credential, os.environ).token
        if credential and credential.source != "login":
            return read_token(credential, os.environ)
    except CredentialError as error:
        give_up(f'credential "{credential.name if credential else ""}": {error}')
    cache = user_cache(os.environ)
    logins = cache.find(target.gateway.address)
    if not logins and cache.all():  # a login at another host of the same cluster will do
        with suppress(TunnelError):
            logins = cache.siblings(target.gateway.address, *cluster_of(target.gateway))
    if not logins:
        give_up(f"not logged in at {target.gateway.address}; run: pomagent login {target.gateway.name}")
    return logins[0].token


def give_up(reason: object) -> NoReturn:
    """Print the reason and exit with 69."""
    click.echo(f"pomagent: {reason}", err=True)
    raise SystemExit(CANNOT_SERVE)


def _settings(config: Path | None, *, is_needed: bool) -> Settings | None:
    path = config_path(config)
    try:
        return load(path, os.environ) if is_needed or config or path.exists() else None
    except ConfigError:
        if is_needed or config:
            raise
        return None  # a gateway given by its address does not need the file


def _address(name: str) -> EdgeUrl | None:
    """Parse a URL or host name. Return None for a text that can only be a name in agent.toml."""
    try:
        if "://" in name:
            edge = parse_edge_url(name, ignore_path=True)
            if not edge.tls:
                raise click.UsageError("GATEWAY must be an https:// URL: the token would be sent in clear text")
            return edge
        if "." in name or ":" in name:
            return EdgeUrl(parse_host_port(name, default_port=443))
    except AddressError as error:
        raise click.UsageError(f"GATEWAY {error}") from error
    return None


def _known(settings: Settings) -> dict[str, tuple[Gateway, Credential | None]]:
    """Return gateways by name: those of ``[gateways]``, and those implied by routes."""
    known = {gateway.name: (gateway, credential) for gateway, credential in settings.gateways}
    for route in settings.routes:
        known.setdefault(route.gateway.name, (route.gateway, route.credential))
    return known


def _only(
    known: dict[str, tuple[Gateway, Credential | None]], settings: Settings | None
) -> tuple[Gateway, Credential | None]:
    """Return the only gateway, or the only one that needs a login. Raises UsageError if there are several."""
    routes = settings.routes if settings else ()
    for_login = {r.gateway.name for r in routes if r.credential and r.credential.source == "login"}
    names = list(for_login) or list(known)
    if len(names) != 1:
        raise click.UsageError(f"name the GATEWAY{_choices(known)}")
    return known[names[0]]


def _choices(known: dict[str, tuple[Gateway, Credential | None]]) -> str:
    return f"; agent.toml has {', '.join(sorted(known))}" if known else "; give its address, such as https://HOST"
