"""What is kept warm for which protocol, and for how long (design §5).

A warm tunnel holds a connection to the route's server open before anybody logs in, and servers that speak first count
or time those, so that they get a TLS connection to the edge only.
"""

from __future__ import annotations

from dataclasses import dataclass

from pomagent.settings import Warm


@dataclass(frozen=True, slots=True)
class Preset:
    """The defaults of one protocol."""

    ports: tuple[int, ...]
    warm: Warm
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

UNLISTED = Preset((), "tls", 240)  # it may be a server that speaks first
_BY_PORT = {port: protocol for protocol, preset in PRESETS.items() for port in preset.ports}


def protocol_and_preset(protocol: str, warm: str, port: int) -> tuple[str, Preset]:
    """Decides what ``protocol = "auto"`` means for a destination's port."""
    if protocol == "auto" and port not in _BY_PORT:
        return "generic", PRESETS["generic"] if warm == "tunnel" else UNLISTED
    decided = _BY_PORT[port] if protocol == "auto" else protocol
    return decided, PRESETS[decided]
