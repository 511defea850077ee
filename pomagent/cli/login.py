"""``pomagent login``, ``logout`` and ``whoami``: logins through a browser."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from pomagent.admin.control.client import NotRunning
from pomagent.cli.agent_client import ask_if_running, socket_option
from pomagent.cli.gateway_target import Target, ca_option, find_target, gateway_argument, give_up, token_of
from pomagent.cli.options import browser_cmd_option, callback_port_option, config_option, no_browser_option
from pomagent.errors import CredentialError, CredentialRejected, RouteUnknown, TunnelError
from pomagent.runtime.exit_codes import CANNOT_SERVE

credential_option = click.option(
    "--credential", default="", metavar="NAME", help="Credential to use, if the gateway has several logins."
)


@click.command(short_help="Log in to a gateway with a browser.")
@gateway_argument
@config_option
@socket_option
@ca_option
@credential_option
@browser_cmd_option
@callback_port_option
@no_browser_option
def login(
    gateway: str | None, config: Path | None, control_socket: Path | None, ca_file: Path | None, credential: str,
    browser_cmd: str, callback_port: int, no_browser: bool,
) -> None:  # fmt: skip
    """Log in with a browser at GATEWAY: a name in agent.toml, or an address. Default: the only gateway.

    The token is stored for this user's commands, and given to the running agent if a route needs it. Over SSH, open the
    printed address in any browser, and paste the address at which the browser arrives.
    """
    from pomagent.credentials.login.flow import LoginOptions, LoginReport, log_in  # noqa: PLC0415 - imports requests
    from pomagent.credentials.login.stored import user_cache  # noqa: PLC0415

    target = find_target(gateway, config, ca_file)
    _check_agent(target, config, control_socket)
    options = LoginOptions(
        browser_cmd, not no_browser, callback_port, paste_from=sys.stdin.fileno() if sys.stdin else None
    )
    try:
        token = log_in(
            target.gateway,
            options,
            LoginReport(_print_error, lambda reason: _print_error(f"refused a forged callback: {reason}")),
        )
    except (CredentialError, TunnelError) as error:
        give_up(error)
    except KeyboardInterrupt:
        give_up("the login was cancelled")
    try:
        user_cache(os.environ).store(target.gateway.address, token)
    except OSError as error:
        _print_error(f"the token cannot be stored for this user's commands: {error}")
    click.echo(f"logged in at {target.gateway.address}")
    if target.is_for_login:
        body = {"gateway": target.gateway.name, "credential": credential, "token": token.get_secret_value()}
        _send_to_agent(config, control_socket, body)


@click.command(short_help="Forget the login at a gateway.")
@gateway_argument
@config_option
@socket_option
@ca_option
@credential_option
def logout(
    gateway: str | None, config: Path | None, control_socket: Path | None, ca_file: Path | None, credential: str
) -> None:
    """Forget the login at GATEWAY, for this user and in the running agent. Open sessions go on."""
    from pomagent.credentials.login.stored import user_cache  # noqa: PLC0415

    target = find_target(gateway, config, ca_file)
    try:
        count = user_cache(os.environ).forget_gateway(target.gateway.address)
    except OSError as error:
        give_up(f"the token cannot be removed: {error}")
    click.echo(f"logged out at {target.gateway.address}" if count else f"not logged in at {target.gateway.address}")
    if target.is_for_login:
        body = {"gateway": target.gateway.name, "credential": credential}
        answer = ask_if_running(config, control_socket, "POST", "/forget-token", body)
        if not isinstance(answer, NotRunning):
            click.echo(f"forgotten by the agent: {', '.join(answer['routes'])}")
    click.echo("the gateway ends its own session when it expires, or when the browser signs out there")


@click.command(short_help="Print the identity at a gateway.")
@gateway_argument
@config_option
@ca_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of sentences.")
def whoami(gateway: str | None, config: Path | None, ca_file: Path | None, as_json: bool) -> None:
    """Print the identity at GATEWAY, when its login expires, and the routes in the portal."""
    target = find_target(gateway, config, ca_file)
    document = _identity(target)
    if as_json:
        click.echo(json.dumps(document))
        return
    click.echo(f"gateway    {document['gateway']}")
    click.echo(f"identity   {document['identity']}")
    if document["logged_in_at"]:
        click.echo(f"logged in  {document['logged_in_at']}")
    click.echo(f"until      {document['expires_at'] or 'unknown: the token has no expiry'}")
    routes = document["routes"]
    listed = "the gateway has no portal" if routes is None else f"{len(routes)} listed{': ' if routes else ''}"
    click.echo(f"routes     {listed}{', '.join(routes or [])}")


def _identity(target: Target) -> dict[str, Any]:
    from pomagent.credentials import edge_api  # noqa: PLC0415 - imports requests
    from pomagent.credentials.login.claims import claims_of  # noqa: PLC0415

    token = token_of(target)
    scheme = target.credential.scheme if target.credential else "pomerium"
    routes: list[str] | None = None
    try:
        user = edge_api.user(target.gateway, token, scheme=scheme)
        with suppress(RouteUnknown):  # the gateway has no portal
            routes = [route.name or route.url for route in edge_api.portal_routes(target.gateway, token, scheme=scheme)]
    except CredentialRejected as error:
        give_up(f"{error}; run: pomagent login {target.gateway.name}")
    except TunnelError as error:
        give_up(error)
    claims = claims_of(token)
    return {
        "gateway": str(target.gateway.address), "identity": _name(user) or claims.subject or "unknown",
        "logged_in_at": _iso(claims.issued_at), "expires_at": _iso(claims.expires_at), "routes": routes,
    }  # fmt: skip


def _name(user: dict[str, Any]) -> str:
    """Return the most readable name in the claims. Some identity providers send lists."""
    for key in ("email", "name", "user", "sub"):
        value = user.get(key)
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, str) and first and first.isprintable():
            return first
    return ""


def _check_agent(target: Target, config: Path | None, control_socket: Path | None) -> None:
    """Check, before the login, that this user may send the agent a token, or exit with 77 if not. Blocks."""
    if target.is_for_login:
        ask_if_running(config, control_socket, "GET", "/status")


def _send_to_agent(config: Path | None, control_socket: Path | None, body: dict[str, str]) -> None:
    answer = ask_if_running(config, control_socket, "POST", "/token", body)
    if isinstance(answer, NotRunning):
        _print_error(f"start the agent and log in again: only this user's commands have the token: {answer}")
        raise SystemExit(CANNOT_SERVE)
    click.echo(f"given to the agent: {', '.join(answer['routes'])}")
    if not answer["kept"]:
        _print_error("the agent cannot store the token for its next start; see its log")


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _print_error(text: str) -> None:
    click.echo(text, err=True)
