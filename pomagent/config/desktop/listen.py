"""Where imported routes listen: where Desktop did, as far as that is a fixed loopback address of one route only."""

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
"""Added to a destination's port that only root may listen on: 22 becomes 10022."""
SPARE_PORTS = range(20_000, 32_768)
"""For all others: below those that the kernel gives to clients (ip_local_port_range), which may take them first."""

EVERYWHERE = "0.0.0.0"  # noqa: S104  # recognised, not bound
IS_CHOSEN = "Desktop chose a port at each start; this one is fixed"


class Addresses:
    """Gives each route an address of its own; the same export always gives the same addresses.

    So nothing is asked of this machine: a port that is taken here may be free where the file is used, and one that the
    running agent holds must not move when the import is repeated.
    """

    def __init__(self) -> None:
        self._listeners = Listeners()
        self._spare = iter(SPARE_PORTS)
        # what the agent listens on itself, unless somebody turns it off
        self._listeners.claim(parse_host_port(StatusTable.model_fields["listen"].default), "the status page")

    def claim(self, address: HostPort, owner: str) -> str:
        """Takes the address and returns "", or returns who has it."""
        return self._listeners.claim(address, owner)

    def choose(self, destination: HostPort, owner: str) -> HostPort:
        """A free one, with the destination's own port where possible; the kernel's choice when none is left."""
        port = destination.port
        wished = port if port >= FIRST_UNPRIVILEGED else port + ABOVE_PRIVILEGED
        for candidate in chain([wished], self._spare):
            address = HostPort(LOOPBACK, candidate)
            if not self.claim(address, owner):
                return address
        return HostPort(LOOPBACK, 0)


def read_listen(text: str) -> tuple[HostPort | None, str]:
    """What a connection's listenAddr asks for, None if it leaves that open; and what was made of it, if anything."""
    try:
        address = _parse(text)
    except AddressError as error:
        return None, f"another address than Desktop's, whose listenAddr {error}"
    if address is None or address.port == 0:
        return None, ""
    if is_loopback(address):
        return address, ""
    return HostPort(LOOPBACK, address.port), (
        "on loopback only: Desktop let other hosts connect as well, which needs another listen and unsafe_listen = true"
    )


def _parse(text: str) -> HostPort | None:
    """``IP:PORT`` as we write it, or ``:PORT``, which is every address to Go."""
    if not text:
        return None
    address = parse_listen(f"{EVERYWHERE}{text}" if text.startswith(":") else text, Path())
    if not isinstance(address, HostPort):
        raise AddressError("is a path")
    return address
