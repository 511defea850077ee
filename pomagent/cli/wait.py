"""``pomagent wait``."""

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

LOOK_EVERY_S = 0.2
LEAST_TIMEOUT_S = 1.0
"""For one answer: also of an agent that is asked at the last moment."""


@click.command(short_help="Wait until the agent, or routes, can serve.")
@config_option
@socket_option
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), default=60.0, show_default=True, metavar="S",
              help="Give up after so long; 0: ask once.")  # fmt: skip
@click.option("--all", "want_all", is_flag=True, help="Wait for every enabled route.")
@click.argument("routes", nargs=-1, metavar="[ROUTE]…", shell_complete=route_names)
def wait(
    config: Path | None, control_socket: Path | None, timeout_s: float, want_all: bool, routes: tuple[str, ...]
) -> None:
    """Wait until the agent runs and is not stopping, and until each ROUTE is ready; exit 0 then.

    Exits 69 when the time is over, with what is missing, and 2 at once for a route that the agent does not have.
    """
    give_up_at = time.monotonic() + timeout_s
    while True:
        left_s = give_up_at - time.monotonic()
        missing = _missing(config, control_socket, max(LEAST_TIMEOUT_S, left_s), routes, want_all=want_all)
        if not missing:
            return
        if time.monotonic() + LOOK_EVERY_S > give_up_at:
            break
        select.select([], [], [], LOOK_EVERY_S)
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
    """What is not ready yet, each in a sentence. Raises UsageError for a name that no route has."""
    routes = {route["name"]: route for route in answer["routes"]}
    unknown = [name for name in names if name not in routes]
    if unknown:
        raise click.UsageError(f'no route is named {", ".join(unknown)}; "pomagent status" lists them')
    if not answer["is_ready"]:
        yield "the agent was told to stop"
        return
    wanted = [name for name, route in routes.items() if route["state"] != "disabled"] if want_all else names
    for name in dict.fromkeys(wanted):
        route = routes[name]
        if not route["is_ready"]:
            yield f"{name}: {route['state']}" + (f": {route['reason']}" if route["reason"] else "")
