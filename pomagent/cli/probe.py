"""``pomagent probe``: opens one tunnel per route."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
from pydantic import SecretStr

from pomagent.cli.completion import route_names
from pomagent.cli.options import config_option, load_config
from pomagent.errors import TunnelError
from pomagent.runtime.exit_codes import CANNOT_SERVE
from pomagent.settings import Credential, Route, Settings

MAX_CONCURRENT = 8
"""Maximum routes probed at the same time."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of probing one route."""

    route: str
    destination: str
    gateway: str
    ok: bool
    dns_ms: float | None = None
    tcp_ms: float | None = None
    tls_ms: float | None = None
    connect_ms: float | None = None
    certificate_expires: str | None = None
    transport: str | None = None
    phase: str | None = None
    status: int | None = None
    recovery: str | None = None
    request_id: str = ""
    error: str = ""


@click.command(short_help="Test each route by opening a tunnel.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.argument("routes", nargs=-1, metavar="[ROUTE]…", shell_complete=route_names)
def probe(config: Path | None, as_json: bool, routes: tuple[str, ...]) -> None:
    """Open and close one tunnel per route. Prints how long each step took, or the cause of the failure and its remedy.

    Exits 69 if any route fails.
    """
    settings = load_config(config)
    findings = _probe_all(settings, _chosen(settings, routes))
    if as_json:
        click.echo(json.dumps({"routes": [asdict(finding) for finding in findings]}))
    else:
        _print(findings)
    if not all(finding.ok for finding in findings):
        sys.exit(CANNOT_SERVE)


def _chosen(settings: Settings, names: tuple[str, ...]) -> list[Route]:
    known = {route.name: route for route in settings.routes}
    for name in names:
        if name not in known:
            raise click.UsageError(f"no route is named {name}; {settings.path} has {', '.join(known) or 'no routes'}")
    return [known[name] for name in names] or [route for route in settings.routes if route.enabled]


def _probe_all(settings: Settings, routes: list[Route]) -> list[Finding]:
    from gevent import get_hub  # noqa: PLC0415 - the other commands need no event loop
    from gevent.pool import Pool  # noqa: PLC0415

    from pomagent.credentials.login.stored import presentable_token  # noqa: PLC0415
    from pomagent.credentials.sources import TokenSources  # noqa: PLC0415
    from pomagent.gateway.gateways import Gateways  # noqa: PLC0415
    from pomagent.log.crash_reports import install_crash_boundary  # noqa: PLC0415
    from pomagent.log.logger import LogLevel, LogWriter, make_logger  # noqa: PLC0415

    writer = LogWriter(sys.stderr.fileno())
    log = make_logger(writer, format="console", level=LogLevel("critical"))  # the findings are the output
    restore = install_crash_boundary(log, get_hub())  # handles Ctrl-C without a crash report
    sources = TokenSources(os.environ, log)
    login_gateways = {route.credential: route.gateway for route in settings.routes}

    def read(credential: Credential) -> SecretStr:
        if credential.source == "login":
            return presentable_token(credential, login_gateways[credential], os.environ)
        return sources.read(credential)

    gateways = Gateways(read, log)
    try:
        gateways.adopt(settings, gateways.prepare(settings))

        def probe_route(route: Route) -> Finding:
            opener = gateways.opener(route, log)
            finding = Finding(route.name, str(route.destination), str(route.gateway.address), ok=False)
            try:
                tunnel = opener.open(opener.secure())
            except TunnelError as error:
                return replace(
                    finding, phase=error.phase, status=error.status, recovery=error.recovery.value,
                    request_id=error.request_id, error=str(error),
                )  # fmt: skip
            try:
                return replace(
                    finding, ok=True, **asdict(tunnel.timings), request_id=tunnel.request_id,
                    certificate_expires=tunnel.certificate_expires, transport=tunnel.transport,
                )  # fmt: skip
            finally:
                tunnel.finish()

        return list(Pool(MAX_CONCURRENT).imap(probe_route, routes))
    finally:
        gateways.close()
        restore()
        writer.close()


def _print(findings: list[Finding]) -> None:
    width = max([len(finding.route) for finding in findings], default=0)
    for finding in findings:
        name = f"{finding.route:<{width}}"
        if not finding.ok:
            request = f" (request {finding.request_id})" if finding.request_id else ""
            click.echo(f"{name}  failed  {finding.error}{request}")
            continue
        times = (
            ("dns", finding.dns_ms),
            ("tcp", finding.tcp_ms),
            ("tls", finding.tls_ms),
            ("connect", finding.connect_ms),
        )
        steps = "  ".join(f"{phase} {'-' if ms is None else format(ms, '.1f')} ms" for phase, ms in times)
        expires = f"  certificate until {finding.certificate_expires}" if finding.certificate_expires else ""
        click.echo(f"{name}  ok      {steps}  {finding.transport}{expires}")
