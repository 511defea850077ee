"""A Redis server without persistence."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.gateway.ports import LOOPBACK, unused_port
from tests.servers.programs import listens, program, serve


@contextlib.contextmanager
def redis(directory: Path, **more: str) -> Iterator[int]:
    """Run a server with these additional settings, and yield its port."""
    port = unused_port()
    settings = {"port": str(port), "bind": LOOPBACK, "dir": str(directory), "save": "", "daemonize": "no", **more}
    arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
    server = serve(directory / "redis.log", program("redis-server"), *arguments)
    try:
        server.wait(lambda: listens(port))
        yield port
    finally:
        server.stop()
