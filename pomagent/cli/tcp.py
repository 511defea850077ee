"""``pomagent tcp``: forwards one route given on the command line, with pomerium-cli's flags."""

from __future__ import annotations

import base64
import binascii
import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from pomagent.cli.options import browser_cmd_option, callback_port_option, no_browser_option
from pomagent.config.listen import parse_listen
from pomagent.config.secrets import read_token
from pomagent.errors import ConfigError, CredentialError, Problem
from pomagent.protocol.route_url import AddressError, EdgeUrl, parse_edge_url, parse_route_url
from pomagent.runtime.files import FileError, read_file
from pomagent.settings import Credential, Gateway, HostPort, Route, Trust

STDIO_LINGER_S = 2.0
"""Seconds without a byte from the destination, after the end of standard input, that end the session."""
LOGIN_WAIT_S = 320.0
"""Seconds a client may wait for a tunnel that needs a login: five minutes for the sign-in page, the rest for dials."""
CERTIFICATE, PRIVATE_KEY = "CERTIFICATE", "PRIVATE KEY"
"""Labels of PEM blocks."""
_FILE = click.Path(path_type=Path, dir_okay=False)
_PEM = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command(short_help="Forward to one destination without an agent.toml.")
@click.argument("destination")
@click.option(
    "--listen",
    default="127.0.0.1:0",
    show_default=True,
    metavar="ADDR|-",
    help="[IP:]PORT, or - for standard input and output.",
)
@click.option("--pomerium-url", metavar="URL", help="The gateway. Default: the destination's host on port 443.")
@click.option(
    "--service-account",
    metavar="JWT",
    help="Rejected: every local user can read a command line. Use --service-account-file.",
)
@click.option("--service-account-file", type=_FILE, metavar="FILE", help="File with the service account's token.")
@click.option(
    "--alternate-ca-path", type=_PEM, metavar="FILE", help="CA certificates to trust instead of the system's."
)
@click.option("--ca-cert", metavar="BASE64", help="CA certificate to trust instead of the system's: its PEM in base64.")
@browser_cmd_option
@callback_port_option
@no_browser_option
@click.option("--no-login", is_flag=True, help="Start no login, and send no token of an earlier login.")
@click.option("--client-cert", type=_PEM, metavar="FILE", help="Client certificate, PEM.")
@click.option("--client-key", type=_PEM, metavar="FILE", help="Key of the client certificate, PEM.")
@click.option(
    "--disable-tls-verification",
    is_flag=True,
    help="Accept any certificate. Anyone on the path can then read the token.",
)
def tcp(
    destination: str, listen: str, pomerium_url: str | None, service_account: str | None,
    service_account_file: Path | None, alternate_ca_path: Path | None, ca_cert: str | None,
    browser_cmd: str, callback_port: int, no_browser: bool, no_login: bool,
    client_cert: Path | None, client_key: Path | None, disable_tls_verification: bool,
) -> None:  # fmt: skip
    """Forward to one DESTINATION (host:port or a route's tcp+https:// URL) without an agent.toml.

    Prints "listening on HOST:PORT". With --listen -, it connects standard input and output instead, and exits when the
    session ends. Without a service account, the first connection that the gateway rejects starts a login and waits for
    it. See "pomagent login".
    """
    if service_account is not None:
        raise click.UsageError(
            "use --service-account-file FILE: --service-account would show the token in the process list"
        )
    if client_key and not client_cert:
        raise click.UsageError("--client-key needs --client-cert")
    _check_file(alternate_ca_path, CERTIFICATE, "--alternate-ca-path")
    _check_file(client_cert, CERTIFICATE, "--client-cert")
    _check_file(client_key, PRIVATE_KEY, "--client-key")
    trust = Trust(
        verify=not disable_tls_verification, ca_file=alternate_ca_path, ca_pem=_decoded(ca_cert),
        client_cert_file=client_cert, client_key_file=client_key,
    )  # fmt: skip
    to_stdio = listen == "-"
    route = _route(destination, pomerium_url, HostPort("127.0.0.1", 0) if to_stdio else _listen(listen), trust,
                   _credential(service_account_file, no_login=no_login), to_stdio=to_stdio)  # fmt: skip
    from pomagent.cli.single_route import LoginOptions, serve, serve_stdio  # noqa: PLC0415 - loads the event loop

    login = LoginOptions(browser_cmd, callback_port, opens_browser=not no_browser)
    sys.exit(serve_stdio(route, login) if to_stdio else serve(route, login))


def _route(
    destination: str, pomerium_url: str | None, listen: HostPort, trust: Trust, credential: Credential | None,
    *, to_stdio: bool,
) -> Route:  # fmt: skip
    try:
        parsed = parse_route_url(destination)
    except AddressError as error:
        raise click.UsageError(f"DESTINATION {error}") from error
    edge = _edge(pomerium_url) if pomerium_url else parsed.edge
    is_login = credential is not None and credential.source == "login"
    return Route(
        name=str(parsed.destination).replace(":", "-"), listen=listen, destination=parsed.destination,
        gateway=Gateway(name=str(edge.address), address=edge.address, tls=edge.tls, trust=trust), credential=credential,
        protocol="auto",
        # Only a waiting client may start a login, never a warm tunnel.
        warm="off" if to_stdio or credential is None or is_login else "auto",
        wait_timeout_s=LOGIN_WAIT_S if is_login else 20.0,
        half_close_timeout_s=STDIO_LINGER_S if to_stdio else 60.0,
    )  # fmt: skip


def _edge(url: str) -> EdgeUrl:
    try:
        edge = parse_edge_url(url, ignore_path=True)
    except AddressError as error:
        raise click.UsageError(f"--pomerium-url {error}") from error
    if not edge.tls:
        raise click.UsageError("--pomerium-url would send the token in clear text; expected https://")
    return edge


def _listen(text: str) -> HostPort:
    try:
        address = parse_listen(text if ":" in text else f"127.0.0.1:{text}", Path.cwd())
    except AddressError as error:
        raise click.UsageError(f"--listen {error}") from error
    if isinstance(address, Path):
        raise click.UsageError("--listen takes no Unix socket: use an agent.toml for that; expected [IP:]PORT or -")
    return address


def _credential(file: Path | None, *, no_login: bool) -> Credential | None:
    if file is None:
        return None if no_login else Credential("login", "login", anonymous_first=True)
    try:
        credential = Credential("--service-account-file", "service_account_file", path=file)
        return replace(credential, token=read_token(credential, os.environ))
    except CredentialError as error:
        raise ConfigError([Problem(Path("command line"), 0, "--service-account-file", str(error))]) from error


def _decoded(ca_cert: str | None) -> str:
    if ca_cert is None:
        return ""
    try:
        pem = base64.b64decode(ca_cert, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise click.UsageError("--ca-cert is not a PEM certificate in base64") from error
    if not pem:  # an unset variable in a script, which must not select the system's trust store
        raise click.UsageError("--ca-cert is empty; expected a PEM certificate in base64")
    _expect(CERTIFICATE, pem, "--ca-cert")
    return pem


def _check_file(file: Path | None, mark: str, flag: str) -> None:
    """Reject a file without this PEM block by name: OpenSSL's own error names neither file nor flag."""
    if file is None:
        return
    from pomagent.config.trust import MAX_PEM_BYTES  # noqa: PLC0415 - few give a file

    try:
        content = read_file(file, limit=MAX_PEM_BYTES).content
    except FileError as error:
        raise click.UsageError(f"{flag} {error}") from error
    _expect(mark, content.decode("ascii", "replace"), f"{flag} {file}")


def _expect(mark: str, text: str, what: str) -> None:
    if mark not in text:
        raise click.UsageError(f"{what} holds no PEM {mark.lower()}")
