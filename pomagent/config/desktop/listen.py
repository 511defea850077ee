"""Chooses listen addresses of imported routes: those of Desktop if they are fixed, on loopback and unique."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from pomagent.config.listen import Listeners, is_loopback, parse_listen
from pomagent.config.model import StatusTable
from pomagent.protocol.route_url import AddressError, parse_host_port
from pomagent.settings import HostPort

LOOPBACK = "127.0.0.1"
FIRST_UNPRIVILEGED = 1024
ABOVE_PRIVILEGED = 10_000
"""Offset added to a destination's port that only root may bind: 22 becomes 10022."""
SPARE_PORTS = range(20_000, 32_768)
"""Ports for all other routes, below the range that the kernel assigns to clients (ip_local_port_range)."""

EVERYWHERE = "0.0.0.0"  # noqa: S104  # recognised, not bound
IS_CHOSEN = "Desktop chose a port at each start; this one is fixed"


class Addresses:
    """Assigns a unique address to each route. The same export always results in the same addresses.

    It therefore does not check this host: a port in use here may be free where the file is used, and a port of the
    running agent must not change when the import is repeated.
    """

    def __init__(self) -> None:
        self._listeners = Listeners()
        self._spare = iter(SPARE_PORTS)
        # the agent listens there itself, unless status.listen is changed
        self._listeners.claim(parse_host_port(StatusTable.model_fields["listen"].default), "the status page")

    def claim(self, address: HostPort, owner: str) -> str:
        """Reserve the address and return "", or return its owner."""
        return self._listeners.claim(address, owner)

    def choose(self, destination: HostPort, owner: str) -> HostPort:
        """Return a free address, with the destination's port if possible, or with port 0 if none is left."""
        port = destination.port
        wished = port if port >= FIRST_UNPRIVILEGED else port + ABOVE_PRIVILEGED
        for candidate in chain([wished], self._spare):
            address = HostPort(LOOPBACK, candidate)
            if not self.claim(address, owner):
                return address
        return HostPort(LOOPBACK, 0)


def read_listen(text: str) -> tuple[HostPort | None, str]:
    """Return the address in a connection's listenAddr, None if it gives none, and a note if it was changed."""
    try:
        address = _parse(text)
    except AddressError as error:
        return None, f"another address than Desktop's: its listenAddr {error}"
    if address is None or address.port == 0:
        return None, ""
    if is_loopback(address):
        return address, ""
    return HostPort(LOOPBACK, address.port), (
        "on loopback only: Desktop let other hosts connect as well, which needs another listen and unsafe_listen = true"
    )


def _parse(text: str) -> HostPort | None:
    """Parse ``IP:PORT``, or ``:PORT``, which in Go means every address."""
    if not text:
        return None
    address = parse_listen(f"{EVERYWHERE}{text}" if text.startswith(":") else text, Path())
    if not isinstance(address, HostPort):
        raise AddressError("is a path")
    return address
