"""``pomagent tcp``: one route without a file, with pomerium-cli's flags."""

from __future__ import annotations

import base64
import binascii
import os
import signal
import sys
from pathlib import Path

import click

from pomagent.cli.exits import CANNOT_SERVE
from pomagent.config import read_token
from pomagent.config.listen import is_loopback
from pomagent.config.presets import protocol_and_preset
from pomagent.errors import ConfigError, CredentialError, Problem
from pomagent.protocol.route_url import AddressError, EdgeUrl, parse_edge_url, parse_host_port, parse_route_url
from pomagent.settings import AgentSettings, Credential, Gateway, HostPort, Route, Settings, Trust

STDIO_LINGER_S = 2.0
"""After the end of standard input: the answer is still read until so long passes without a byte."""
DRAIN_S = 2.0
_FILE = click.Path(path_type=Path, dir_okay=False)
_PEM = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command()
@click.argument("destination")
@click.option(
    "--listen",
    default="127.0.0.1:0",
    show_default=True,
    metavar="ADDR|-",
    help="HOST:PORT, or - for standard input and output.",
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
@click.option("--client-cert", type=_PEM, metavar="FILE", help="Client certificate, PEM.")
@click.option("--client-key", type=_PEM, metavar="FILE", help="Its key, PEM.")
@click.option(
    "--disable-tls-verification", is_flag=True, help="Trust whoever answers. Shows the token to anybody in between."
)
def tcp(
    destination: str, listen: str, pomerium_url: str | None, service_account: str | None,
    service_account_file: Path | None, alternate_ca_path: Path | None, ca_cert: str | None,
    client_cert: Path | None, client_key: Path | None, disable_tls_verification: bool,
) -> None:  # fmt: skip
    """Forward to one DESTINATION (host:port or a route's tcp+https:// URL) without a file.

    Prints "listening on HOST:PORT", or with --listen - connects standard input and output and exits.
    """
    if service_account is not None:
        raise click.UsageError("--service-account shows the token in the process list; use --service-account-file FILE")
    if client_key and not client_cert:
        raise click.UsageError("--client-key needs --client-cert")
    trust = Trust(
        verify=not disable_tls_verification, ca_file=alternate_ca_path, ca_pem=_decoded(ca_cert),
        client_cert_file=client_cert, client_key_file=client_key,
    )  # fmt: skip
    to_stdio = listen == "-"
    route = _route(destination, pomerium_url, HostPort("127.0.0.1", 0) if to_stdio else _listen(listen), trust,
                   _credential(service_account_file), to_stdio=to_stdio)  # fmt: skip
    sys.exit(_serve_stdio(route) if to_stdio else _serve(route))


def _route(
    destination: str, pomerium_url: str | None, listen: HostPort, trust: Trust, credential: Credential | None,
    *, to_stdio: bool,
) -> Route:  # fmt: skip
    try:
        parsed = parse_route_url(destination)
    except AddressError as error:
        raise click.UsageError(f"DESTINATION {error}") from error
    edge = _edge(pomerium_url) if pomerium_url else parsed.edge
    protocol, preset = protocol_and_preset("auto", "auto", parsed.destination.port)
    return Route(
        name=str(parsed.destination).replace(":", "-"), listen=listen, destination=parsed.destination,
        gateway=Gateway(name=str(edge.address), address=edge.address, tls=edge.tls, trust=trust), credential=credential,
        protocol=protocol, pool_max_age_s=preset.max_age_s,
        # Without a credential there is nothing to keep warm: the first connection tells what the gateway thinks of it.
        warm="off" if to_stdio or credential is None else preset.warm,
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
        return parse_host_port(text if ":" in text else f"127.0.0.1:{text}", lowest_port=0)
    except AddressError as error:
        raise click.UsageError(f"--listen {error}") from error


def _credential(file: Path | None) -> Credential | None:
    if file is None:
        return None
    try:
        asked = Credential("--service-account-file", "service_account_file", path=file)
        return Credential(asked.name, asked.source, path=file, token=read_token(asked, os.environ))
    except CredentialError as error:
        raise ConfigError([Problem(file, 0, "", str(error))]) from error


def _decoded(ca_cert: str | None) -> str:
    if ca_cert is None:
        return ""
    try:
        pem = base64.b64decode(ca_cert, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise click.UsageError("--ca-cert is not the base64 of a PEM certificate") from error
    if not pem:  # an unset variable in a script; it must not mean the system's trust store
        raise click.UsageError("--ca-cert is empty; expected the base64 of a PEM certificate")
    return pem


# --- at work ----------------------------------------------------------------------------------------------------------


def _serve(route: Route) -> int:
    import gevent  # noqa: PLC0415 - the other commands need no event loop
    from gevent.event import Event  # noqa: PLC0415

    from pomagent.agent import Agent  # noqa: PLC0415
    from pomagent.cli.exits import NOT_PERMITTED  # noqa: PLC0415
    from pomagent.log import LogLevel, LogWriter, make_logger, resolve_format  # noqa: PLC0415
    from pomagent.log_boundary import install_crash_boundary  # noqa: PLC0415

    writer = LogWriter(sys.stderr.fileno())
    level = LogLevel("info")
    log = make_logger(writer, format=resolve_format("auto", writer.fd), level=level)
    install_crash_boundary(log, gevent.get_hub())
    agent = Agent(log, level, lambda credential: read_token(credential, os.environ))
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        gevent.signal_handler(number, stop.set)
    try:
        agent.apply(_settings(route))
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
        agent.finish(DRAIN_S)
        writer.close()


def _serve_stdio(route: Route) -> int:
    import gevent  # noqa: PLC0415 - the other commands need no event loop

    from pomagent.agent import Agent  # noqa: PLC0415
    from pomagent.log import LogLevel, LogWriter, make_logger, resolve_format  # noqa: PLC0415
    from pomagent.log_boundary import install_crash_boundary  # noqa: PLC0415
    from pomagent.stdio import StdioClient  # noqa: PLC0415

    writer = LogWriter(sys.stderr.fileno())
    level = LogLevel("critical")
    log = make_logger(writer, format=resolve_format("auto", writer.fd), level=level)
    install_crash_boundary(log, gevent.get_hub())
    agent = Agent(log, level, lambda credential: read_token(credential, os.environ))
    try:
        failure = agent.serve_once(_settings(route), StdioClient(sys.stdin.fileno(), sys.stdout.fileno()))
    finally:
        agent.finish(0)
        writer.close()
    if failure:
        click.echo(f"pomagent: {failure}", err=True)
        return CANNOT_SERVE
    return 0


def _settings(route: Route) -> Settings:
    return Settings(path=Path("command line"), agent=AgentSettings(), routes=(route,))
