"""Small TCP servers that stand behind the routes of the gateway, all in one thread of their own.

Each speaks as little as a test needs. Lines end with ``\\n``, all numbers in them are decimal.

=========  ============================================================================================
echo       returns every byte, and closes after the client's end of file
banner     sends ``SSH-2.0-test\\r\\n`` first, then echoes
page       answers an HTTP request with a small page and closes
upload     8 bytes (big-endian length N), then N bytes → their SHA-256 in hex and ``\\n``. Again and again
download   ``SEED N\\n`` → ``pseudo_random(SEED, N)`` and closes. ``SEED N keep\\n`` stays for another line
answer     ``MILLISECONDS TEXT\\n`` → waits, answers ``TEXT\\n`` and closes, even after the client's end of file
count      reads to the client's end of file → the decimal number of bytes and ``\\n``, and closes
deaf       never reads and never writes
hangup     closes at once
reset      resets at the first byte (at once, and the gateway may never have seen it connected)
=========  ============================================================================================
"""

import asyncio
import hashlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from tests.gateway.ports import LOOPBACK

BLOCK = 64 * 1024
BANNER = b"SSH-2.0-test\r\n"
BACKLOG = 1024
PAGE = """<!doctype html>
<html lang="en">
<title>Behind the gateway</title>
<style>
  body { font: 18px/1.6 system-ui, sans-serif; max-width: 34em; margin: 15vh auto; padding: 0 1em; color: #223; }
  h1 { font-size: 1.6em; } code { background: #eef; padding: .1em .3em; border-radius: .2em; }
</style>
<h1>It works</h1>
<p>This page came through a tunnel: a fixed local port, the agent, an identity-aware gateway, a private server.</p>
<p>Edit <code>agent.toml</code>, save it, and watch the agent follow.</p>
</html>
"""

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def pseudo_random(seed: int, length: int) -> Iterator[bytes]:
    """``length`` bytes in blocks, the same for the same seed."""
    source = random.Random(seed)
    for start in range(0, length, BLOCK):
        yield source.randbytes(BLOCK)[: length - start]


def sha256_of(seed: int, length: int) -> str:
    """The hex digest of ``pseudo_random(seed, length)``."""
    digest = hashlib.sha256()
    for block in pseudo_random(seed, length):
        digest.update(block)
    return digest.hexdigest()


class Destinations:
    """All the servers above, each on a free loopback port."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="destinations", daemon=True)
        self._addresses: dict[str, tuple[str, int]] = {}
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._accepted: Counter[str] = Counter()
        self._open: Counter[str] = Counter()

    def start(self) -> None:
        """Listen on every port. Blocks until all are bound."""
        self._thread.start()
        self._run(self._serve())

    def stop(self) -> None:
        """Close every listener and connection. Blocks until the thread has ended."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def address(self, name: str) -> tuple[str, int]:
        """Where this server listens, for a route or for a test without a gateway."""
        return self._addresses[name]

    def accepted(self, name: str) -> int:
        """How many connections this server has got so far. One counts a moment after the gateway has answered."""
        return self._accepted[name]

    def open(self, name: str) -> int:
        """How many connections this server holds now."""
        return self._open[name]

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _serve(self) -> None:
        for name, handler in HANDLERS.items():
            server = await asyncio.start_server(self._acceptor(name, handler), LOOPBACK, 0, backlog=BACKLOG)
            self._servers.append(server)
            self._addresses[name] = server.sockets[0].getsockname()

    def _acceptor(self, name: str, handler: Handler) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = self._loop.create_task(self._converse(name, handler, reader, writer))
            self._connections.add(connection)
            connection.add_done_callback(self._connections.discard)

        return accept

    async def _converse(
        self, name: str, handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One connection, from accept to close. A client that leaves early is no error here."""
        self._accepted[name] += 1
        self._open[name] += 1
        try:
            await handler(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):  # the last two: not our protocol
            pass
        finally:
            writer.transport.abort()
            self._open[name] -= 1

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Return every byte."""
    while data := await reader.read(BLOCK):
        writer.write(data)
        await writer.drain()


async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak first, then echo."""
    writer.write(BANNER)
    await echo(reader, writer)


async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one HTTP request, whatever it asks for."""
    await reader.readuntil(b"\r\n\r\n")
    body = PAGE.encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def upload(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hash what comes, report the digest, and go on."""
    while True:
        (length,) = struct.unpack(">Q", await reader.readexactly(8))
        writer.write((await _digest(reader, length)).encode() + b"\n")
        await writer.drain()


async def download(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send what was asked for. Then close, unless asked to stay."""
    stay = True
    while stay and (request := await reader.readline()):
        seed, length, *rest = request.decode().split()
        stay = rest == ["keep"]
        for block in pseudo_random(int(seed), int(length)):
            writer.write(block)
            await writer.drain()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take a moment, then answer, whether or not the client has stopped sending."""
    delay_ms, _, text = (await reader.readline()).partition(b" ")
    await asyncio.sleep(int(delay_ms) / 1000)
    writer.write(text)
    await writer.drain()


async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer only after the client's end, which a transport has to carry for that."""
    total = 0
    while data := await reader.read(BLOCK):
        total += len(data)
    writer.write(b"%d\n" % total)
    await writer.drain()


async def deaf(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hold the connection and do nothing with it, until the servers stop."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.Event().wait()


async def hangup(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Close at once."""


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Once spoken to, close with RST: no lingering, nothing flushed."""
    await reader.read(1)
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


HANDLERS: dict[str, Handler] = {
    handler.__name__: handler for handler in (echo, banner, page, upload, download, answer, count, deaf, hangup, reset)
}


async def _digest(reader: asyncio.StreamReader, length: int) -> str:
    """The hex digest of the next ``length`` bytes."""
    digest = hashlib.sha256()
    while length:
        data = await reader.read(min(length, BLOCK))
        if not data:
            raise ConnectionResetError("the client left in the middle of an upload")
        digest.update(data)
        length -= len(data)
    return digest.hexdigest()
