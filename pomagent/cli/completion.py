"""Shell completion of names from the configuration file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from pomagent.cli.options import load_config
from pomagent.errors import ConfigError

if TYPE_CHECKING:
    from pomagent.settings import Settings


def route_names(context: click.Context, _: click.Parameter, prefix: str) -> list[str]:
    """Return matching route names of the file on the command line, or None if it is invalid. Blocks."""
    settings = _settings(context)
    return _matching((route.name for route in settings.routes), prefix) if settings else []


def gateway_names(context: click.Context, _: click.Parameter, prefix: str) -> list[str]:
    """Return matching gateway names: those of ``[gateways]`` and those implied by routes. Blocks."""
    settings = _settings(context)
    if not settings:
        return []
    names = [gateway.name for gateway, _ in settings.gateways] + [route.gateway.name for route in settings.routes]
    return _matching(names, prefix)


def _settings(context: click.Context) -> Settings | None:
    try:
        return load_config(context.params.get("config"))
    except (ConfigError, OSError):
        return None


def _matching(names: Iterable[str], prefix: str) -> list[str]:
    return sorted({name for name in names if name.startswith(prefix)})
