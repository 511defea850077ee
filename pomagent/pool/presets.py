"""What is kept warm for which protocol, and for how long. Pure.

A warm tunnel holds a connection to the route's server open before anybody logs in, and servers that speak first count
or time those, so that they get a TLS connection to the edge only.
"""

from __future__ import annotations

from dataclasses import dataclass

from pomagent.settings import Level


@dataclass(frozen=True, slots=True)
class Preset:
    """The defaults of one protocol."""

    ports: tuple[int, ...]
    level: Level
    max_age_s: float


PRESETS = {
    "generic": Preset((), "tunnel", 120),
    "http": Preset((80, 443, 8000, 8080, 8443), "tunnel", 120),
    "redis": Preset((6379,), "tunnel", 240),
    "postgres": Preset((5432,), "tunnel", 45),
    "ssh": Preset((22,), "tls", 240),
    "mysql": Preset((3306,), "tls", 240),
    "rdp": Preset((3389,), "tls", 240),
    "mssql": Preset((1433,), "tls", 240),
}
SPEAKS_FIRST = "speaks-first"
"""A server that greets, and is none of those."""
SILENT_MAX_AGE_S = 45.0
"""Of a server that has only been found silent: it may be a PostgreSQL, which logs who has not logged in after 60 s."""

_BY_PORT = {port: protocol for protocol, preset in PRESETS.items() for port in preset.ports}


def protocol_of_port(port: int) -> str | None:
    """What a server of this port most likely speaks; None where a port says nothing."""
    return _BY_PORT.get(port)


def preset_of(protocol: str) -> Preset:
    return PRESETS.get(protocol, PRESETS["ssh"])
