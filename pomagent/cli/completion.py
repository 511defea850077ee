"""What a shell may complete beyond commands and options: names from the configuration file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from pomagent.cli.options import load_config
from pomagent.errors import ConfigError

if TYPE_CHECKING:
    from pomagent.settings import Settings


def route_names(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Of the file that the command line names so far. Blocks. No error: a shell cannot show one."""
    settings = _settings(context)
    return _matching((route.name for route in settings.routes), begun) if settings else []


def gateway_names(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """As ``route_names``: the tables, and the edges that routes imply."""
    settings = _settings(context)
    if not settings:
        return []
    names = [gateway.name for gateway, _ in settings.gateways] + [route.gateway.name for route in settings.routes]
    return _matching(names, begun)


def _settings(context: click.Context) -> Settings | None:
    try:
        return load_config(context.params.get("config"))
    except (ConfigError, OSError):
        return None


def _matching(names: Iterable[str], begun: str) -> list[str]:
    return sorted({name for name in names if name.startswith(begun)})
