"""The agent's configuration for an embedded gateway."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.gateway.facade import Gateway, destination

Table = Mapping[str, Any]


def write_agent_toml(directory: Path, gateway: Gateway, listen: Mapping[str, str], **tables: Table) -> Path:
    """Write agent.toml and its token into the directory; returns the path of agent.toml.

    ``listen`` maps a destination's name ("echo") or address ("db.example.test:5432") to a local address.
    ``tables`` adds keys to the tables of those names: ``agent={"log_level": "debug"}, defaults={"warm": "off"}``.
    """
    write_token(directory / "token", gateway.token)
    path = directory / "agent.toml"
    path.write_text(agent_toml(gateway, listen, **tables))
    return path


def write_token(path: Path, token: str) -> None:
    """A token file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(f"{token}\n")


def agent_toml(gateway: Gateway, listen: Mapping[str, str], **tables: Table) -> str:
    """The text of agent.toml, its token in the file ``token`` beside it."""
    edge = {"url": gateway.url, "connect_to": gateway.connect_to, "ca_file": str(gateway.ca_file)}
    parts = [_table(f"[{name}]", keys) for name, keys in tables.items()]
    parts.append(_table("[gateways.demo]", edge))
    parts.append(_table("[credentials.default]", {"service_account_file": "token"}))
    parts += [_table("[[routes]]", _route(*item)) for item in listen.items()]
    return "\n".join(parts)


def _route(name: str, listen: str) -> Table:
    address = name if ":" in name else destination(name)
    return {"name": name.replace(":", "-"), "from": f"tcp+https://{address}", "listen": listen, "gateway": "demo"}


def _table(header: str, keys: Table) -> str:
    """Strings, numbers, booleans and lists of them are written alike in JSON and TOML."""
    return "".join(f"{line}\n" for line in (header, *(f"{key} = {json.dumps(value)}" for key, value in keys.items())))
