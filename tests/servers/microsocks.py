"""A SOCKS5 server."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.gateway.ports import LOOPBACK, unused_port
from tests.servers.programs import Server, listens, program, serve


class Microsocks:
    """A running server: its address and its log."""

    def __init__(self, port: int, server: Server) -> None:
        self.port = port
        self._server = server

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def requests(self) -> list[str]:
        """Log lines of opened connections: ``client[5] 127.0.0.1: connected to HOST:PORT``."""
        return [line for line in self._server.log.splitlines() if "connected to" in line]


@contextlib.contextmanager
def microsocks(directory: Path, *, user: str = "", password: str = "") -> Iterator[Microsocks]:
    """Run a server, which requires a login if ``user`` is given."""
    port = unused_port()
    login = ["-u", user, "-P", password] if user else []
    server = serve(directory / "microsocks.log", program("microsocks"), "-i", LOOPBACK, "-p", str(port), *login)
    try:
        server.wait(lambda: listens(port))
        yield Microsocks(port, server)
    finally:
        server.stop()
