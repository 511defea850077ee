"""The agent's configuration for an embedded gateway."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.gateway.facade import Gateway, destination

Table = Mapping[str, Any]
Listen = Mapping[str, str | Table]
"""A destination's name ("echo") or address ("db.example.test:5432") to a local address, or to any keys of its route."""


def write_agent_toml(directory: Path, gateway: Gateway, listen: Listen, **tables: Table) -> Path:
    """Write agent.toml and its token into the directory. Returns the path of agent.toml.

    ``tables`` adds keys to the tables of those names: ``agent={"log_level": "debug"}, defaults={"warm": "off"}``,
    and overrides those of ``gateways.demo`` and ``credentials.default``, or removes them with None.
    """
    write_token(directory / "token", gateway.token)
    path = directory / "agent.toml"
    path.write_text(agent_toml(gateway, listen, **tables))
    return path


def write_token(path: Path, token: str) -> None:
    """A token file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(f"{token}\n")


def agent_toml(gateway: Gateway, listen: Listen, **tables: Table) -> str:
    """The text of agent.toml, its token in the file ``token`` beside it."""
    edge = {"url": gateway.url, "connect_to": gateway.connect_to, "ca_file": str(gateway.ca_file)}
    own: dict[str, Table] = {"gateways.demo": edge, "credentials.default": {"service_account_file": "token"}}
    merged = own | {name: {**own.get(name, {}), **keys} for name, keys in tables.items()}
    parts = [_table(f"[{name}]", keys) for name, keys in merged.items()]
    parts += [_table("[[routes]]", _route(*item)) for item in listen.items()]
    return "\n".join(parts)


def _route(name: str, keys: str | Table) -> Table:
    address = name if ":" in name else destination(name)
    route = {"name": name.replace(":", "-"), "from": f"tcp+https://{address}", "gateway": "demo"}
    return route | ({"listen": keys} if isinstance(keys, str) else dict(keys))


def _table(header: str, keys: Table) -> str:
    """Strings, numbers, booleans and lists of them are written alike in JSON and TOML."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items() if value is not None]
    return "".join(f"{line}\n" for line in (header, *lines))
