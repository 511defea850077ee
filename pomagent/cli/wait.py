"""``pomagent wait``: waits until the agent or routes are ready."""

from __future__ import annotations

import select
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from pomagent.admin.control.client import ControlError, NotPermitted
from pomagent.cli.agent_client import socket_option, try_to_ask
from pomagent.cli.completion import route_names
from pomagent.cli.options import config_option
from pomagent.runtime.exit_codes import CANNOT_SERVE, NOT_PERMITTED

POLL_INTERVAL_S = 0.2
"""Seconds between two requests."""
MIN_ANSWER_TIMEOUT_S = 1.0
"""Minimum seconds for one answer, also at the end of --timeout."""


@click.command(short_help="Wait until the agent, or given routes, can serve.")
@config_option
@socket_option
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), default=60.0, show_default=True, metavar="S",
              help="Give up after this time; 0: check once.")  # fmt: skip
@click.option("--all", "want_all", is_flag=True, help="Wait for every enabled route.")
@click.argument("routes", nargs=-1, metavar="[ROUTE]…", shell_complete=route_names)
def wait(
    config: Path | None, control_socket: Path | None, timeout_s: float, want_all: bool, routes: tuple[str, ...]
) -> None:
    """Wait until the agent runs and each ROUTE is ready, then exit 0.

    Exits 69 after the timeout, and prints what is not ready. Exits 2 at once for a route that the agent does not have.
    """
    give_up_at = time.monotonic() + timeout_s
    while True:
        left_s = give_up_at - time.monotonic()
        missing = _missing(config, control_socket, max(MIN_ANSWER_TIMEOUT_S, left_s), routes, want_all=want_all)
        if not missing:
            return
        if time.monotonic() + POLL_INTERVAL_S > give_up_at:
            break
        select.select([], [], [], POLL_INTERVAL_S)
    for sentence in missing:
        click.echo(f"pomagent: {sentence}", err=True)
    raise SystemExit(CANNOT_SERVE)


def _missing(
    config: Path | None, control_socket: Path | None, timeout_s: float, names: Sequence[str], *, want_all: bool
) -> list[str]:
    try:
        answer = try_to_ask(config, control_socket, "GET", "/readiness", timeout_s=timeout_s)
    except NotPermitted as error:
        click.echo(f"pomagent: {error}", err=True)
        raise SystemExit(NOT_PERMITTED) from error
    except ControlError as error:
        return [str(error)]
    return list(missing(answer, names, want_all=want_all))


def missing(answer: dict[str, Any], names: Sequence[str], *, want_all: bool) -> Iterable[str]:
    """Yield one sentence for each thing that is not ready. Raises UsageError for an unknown route."""
    routes = {route["name"]: route for route in answer["routes"]}
    unknown = [name for name in names if name not in routes]
    if unknown:
        raise click.UsageError(f'no route is named {", ".join(unknown)}; "pomagent status" lists them')
    if not answer["is_ready"]:
        yield "the agent is stopping"
        return
    wanted = [name for name, route in routes.items() if route["state"] != "disabled"] if want_all else names
    for name in dict.fromkeys(wanted):
        route = routes[name]
        if not route["is_ready"]:
            yield f"{name}: {route['state']}" + (f": {route['reason']}" if route["reason"] else "")
