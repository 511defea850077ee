"""``pomagent tcp``: one route without a file, with pomerium-cli's flags."""

from __future__ import annotations

import base64
import binascii
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pomagent.config.listen import is_loopback, parse_listen
from pomagent.config.secrets import read_token
from pomagent.errors import ConfigError, CredentialError, Problem
from pomagent.protocol.route_url import AddressError, EdgeUrl, parse_edge_url, parse_route_url
from pomagent.runtime.exit_codes import CANNOT_SERVE
from pomagent.settings import AgentSettings, Credential, Gateway, HostPort, Route, Settings, Trust

if TYPE_CHECKING:
    from pomagent.credentials.login.on_demand import PersonalTokens
    from pomagent.log.logger import Logger

STDIO_LINGER_S = 2.0
"""After the end of standard input: the answer is still read until so long passes without a byte."""
LOGIN_WAIT_S = 320.0
"""For a connection that waits for its person: the sign-in page's five minutes and the dials around them."""
DRAIN_S = 2.0
CERTIFICATE, PRIVATE_KEY = "CERTIFICATE", "PRIVATE KEY"
"""What PEM calls them."""
_FILE = click.Path(path_type=Path, dir_okay=False)
_PEM = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command()
@click.argument("destination")
@click.option(
    "--listen",
    default="127.0.0.1:0",
    show_default=True,
    metavar="ADDR|-",
    help="[IP:]PORT, or - for standard input and output.",
)
@click.option("--pomerium-url", metavar="URL", help="The gateway, if it is not the destination's host on port 443.")
@click.option("--service-account", metavar="JWT", help="Refused: a command line is everybody's to read.")
@click.option("--service-account-file", type=_FILE, metavar="FILE", help="The service account's token.")
@click.option(
    "--alternate-ca-path", type=_PEM, metavar="FILE", help="CA certificates to trust instead of the system's."
)
@click.option(
    "--ca-cert", metavar="BASE64", help="A CA certificate to trust instead of the system's, as base64 of its PEM."
)
@click.option("--browser-cmd", default="", metavar="CMD", help="Opens the sign-in page; %s stands for its address.")
@click.option(
    "--callback-port",
    default=0,
    type=click.IntRange(0, 65535),
    metavar="N",
    help="Listen for the browser on this port of 127.0.0.1, for ssh -L; 0: any.",
)
@click.option("--no-browser", is_flag=True, help="Open none: print the address of the sign-in page.")
@click.option("--no-login", is_flag=True, help="Start no login, and present no token of an earlier one.")
@click.option("--client-cert", type=_PEM, metavar="FILE", help="Client certificate, PEM.")
@click.option("--client-key", type=_PEM, metavar="FILE", help="Its key, PEM.")
@click.option(
    "--disable-tls-verification", is_flag=True, help="Trust whoever answers. Shows the token to anybody in between."
)
def tcp(
    destination: str, listen: str, pomerium_url: str | None, service_account: str | None,
    service_account_file: Path | None, alternate_ca_path: Path | None, ca_cert: str | None,
    browser_cmd: str, callback_port: int, no_browser: bool, no_login: bool,
    client_cert: Path | None, client_key: Path | None, disable_tls_verification: bool,
) -> None:  # fmt: skip
    """Forward to one DESTINATION (host:port or a route's tcp+https:// URL) without a file.

    Prints "listening on HOST:PORT", or with --listen - connects standard input and output and exits. Without a service
    account the first connection that the gateway refuses starts a login, and waits for it; see "pomagent login".
    """
    if service_account is not None:
        raise click.UsageError("--service-account shows the token in the process list; use --service-account-file FILE")
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
    way = LoginWay(browser_cmd, callback_port, opens_browser=not no_browser)
    sys.exit(_serve_stdio(route, way) if to_stdio else _serve(route, way))


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
        # A login begins for an application that waits, never for a tunnel that is kept warm.
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
        raise click.UsageError("--listen takes no Unix socket, which needs an agent.toml; expected [IP:]PORT or -")
    return address


def _credential(file: Path | None, *, no_login: bool) -> Credential | None:
    if file is None:
        return None if no_login else Credential("login", "login", anonymous_first=True)
    try:
        asked = Credential("--service-account-file", "service_account_file", path=file)
        return Credential(asked.name, asked.source, path=file, token=read_token(asked, os.environ))
    except CredentialError as error:
        raise ConfigError([Problem(Path("command line"), 0, "--service-account-file", str(error))]) from error


def _decoded(ca_cert: str | None) -> str:
    if ca_cert is None:
        return ""
    try:
        pem = base64.b64decode(ca_cert, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise click.UsageError("--ca-cert is not the base64 of a PEM certificate") from error
    if not pem:  # an unset variable in a script; it must not mean the system's trust store
        raise click.UsageError("--ca-cert is empty; expected the base64 of a PEM certificate")
    _expect(CERTIFICATE, pem, "--ca-cert")
    return pem


def _check_file(file: Path | None, mark: str, flag: str) -> None:
    """A file that is no PEM is said here: OpenSSL's own words help nobody."""
    if file is None:
        return
    try:
        _expect(mark, file.read_text("ascii", "replace"), f"{flag} {file}")
    except OSError as error:
        raise click.UsageError(f"{flag} {file} cannot be read: {error.strerror}") from error


def _expect(mark: str, text: str, what: str) -> None:
    if mark not in text:
        raise click.UsageError(f"{what} holds no PEM {mark.lower()}")


# --- at work ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoginWay:
    """How a login may go, if it comes to one."""

    browser_cmd: str
    callback_port: int
    opens_browser: bool


def _serve(route: Route, way: LoginWay) -> int:
    import gevent  # noqa: PLC0415 - the other commands need no event loop
    from gevent.event import Event  # noqa: PLC0415

    from pomagent.agent import Agent  # noqa: PLC0415
    from pomagent.credentials.sources import TokenSources  # noqa: PLC0415
    from pomagent.log.crash_reports import install_crash_boundary  # noqa: PLC0415
    from pomagent.log.logger import LogLevel, LogWriter, make_logger, resolve_format  # noqa: PLC0415
    from pomagent.runtime.exit_codes import NOT_PERMITTED  # noqa: PLC0415

    writer = LogWriter(sys.stderr.fileno())
    level = LogLevel("info")
    log = make_logger(writer, format=resolve_format("auto", writer.fd), level=level)
    install_crash_boundary(log, gevent.get_hub())
    logins = _logins(route, way, log, reads_stdin=sys.stdin is not None and sys.stdin.isatty())
    agent = Agent(log, level, (logins or TokenSources(os.environ, log)).read)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        gevent.signal_handler(number, stop.set)
    try:
        agent.apply(_settings(logins.seeded(route) if logins else route))
        if agent.quarantined:
            click.echo(agent.quarantined[route.name], err=True)
            return NOT_PERMITTED
        click.echo(f"listening on {agent.listen_address(route.name)}")
        if isinstance(route.listen, HostPort) and not is_loopback(route.listen):
            click.echo("pomagent: that is not loopback: other hosts can connect", err=True)
        stop.wait()
        agent.stop_accepting()
        return 0
    finally:
        if logins:
            logins.close()
        agent.finish(DRAIN_S)
        writer.close()


def _serve_stdio(route: Route, way: LoginWay) -> int:
    import gevent  # noqa: PLC0415 - the other commands need no event loop

    from pomagent.agent import Agent  # noqa: PLC0415
    from pomagent.credentials.sources import TokenSources  # noqa: PLC0415
    from pomagent.log.crash_reports import install_crash_boundary  # noqa: PLC0415
    from pomagent.log.logger import LogLevel, LogWriter, make_logger, resolve_format  # noqa: PLC0415
    from pomagent.sessions.stdio import StdioClient  # noqa: PLC0415

    writer = LogWriter(sys.stderr.fileno())
    level = LogLevel("critical")
    log = make_logger(writer, format=resolve_format("auto", writer.fd), level=level)
    install_crash_boundary(log, gevent.get_hub())
    logins = _logins(route, way, log, reads_stdin=False)
    agent = Agent(log, level, (logins or TokenSources(os.environ, log)).read)
    try:
        settings = _settings(logins.seeded(route) if logins else route)
        client = StdioClient(sys.stdin.fileno(), sys.stdout.fileno())
        failure = agent.serve_once(settings, client)
        if client.loss is not None:
            failure = f"standard output takes nothing more: {client.loss}"
        elif failure.startswith("ended by the client"):
            failure = "nobody reads standard output any more"
    finally:
        if logins:
            logins.close()
        agent.finish(0)
        writer.close()
    if failure:
        click.echo(f"pomagent: {failure}", err=True)
        return CANNOT_SERVE
    return 0


def _logins(route: Route, way: LoginWay, log: Logger, *, reads_stdin: bool) -> PersonalTokens | None:
    """Where the tokens of people come from; None for a route that has nothing to do with them."""
    if route.credential is None or route.credential.source != "login":
        return None
    from pomagent.credentials.login.flow import Way  # noqa: PLC0415 - requests, which others do not wait for
    from pomagent.credentials.login.on_demand import PersonalTokens  # noqa: PLC0415

    how = Way(way.browser_cmd, way.opens_browser, way.callback_port, sys.stdin.fileno() if reads_stdin else None)
    return PersonalTokens(route.gateway, how, lambda text: click.echo(f"pomagent: {text}", err=True), os.environ, log)


def _settings(route: Route) -> Settings:
    return Settings(path=Path("command line"), agent=AgentSettings(), routes=(route,))
