"""What is kept warm for each protocol, and for how long. Pure.

A warm tunnel holds a connection to the route's server before any client logs in. Servers that speak first count or time
such connections, so that their routes keep only TLS connections to the edge.
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
"""The protocol of a server that sends a greeting that is not recognized."""
SILENT_MAX_AGE_S = 45.0
"""Maximum age of a warm tunnel to a server that is only known to be silent: a PostgreSQL logs clients that have not
logged in after 60 s."""

_BY_PORT = {port: protocol for protocol, preset in PRESETS.items() for port in preset.ports}


def protocol_of_port(port: int) -> str | None:
    """Return what a server on this port most likely speaks, or None for a port without a known protocol."""
    return _BY_PORT.get(port)


def preset_of(protocol: str) -> Preset:
    """Return the preset of a protocol. An unknown one gets that of SSH, which fits servers that speak first."""
    return PRESETS.get(protocol, PRESETS["ssh"])
