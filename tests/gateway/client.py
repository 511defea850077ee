"""A CONNECT by hand, with nothing but ``ssl`` and a socket: what the agent is measured against."""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.gateway.certificates import Certificate
from tests.gateway.waiting import scaled

TIMEOUT_S = 10
HEAD_END = b"\r\n\r\n"
RECEIVE_BYTES = 65_536


@dataclass(frozen=True)
class Reply:
    """The gateway's answer to a CONNECT. ``rest`` is what came with it: a body, or the tunnel's first bytes."""

    status: int
    headers: Mapping[str, str]
    rest: bytes


class Tunnel:
    """One TLS connection to a gateway, and what came of the CONNECT on it."""

    def __init__(self, connection: ssl.SSLSocket, reply: Reply) -> None:
        self.socket = connection
        self.reply = reply
        self._early = reply.rest

    def __enter__(self) -> "Tunnel":
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, length: int) -> bytes:
        """Return exactly ``count`` bytes, fewer only at the end of the stream."""
        data = self._early
        while len(data) < length and (more := self.socket.recv(RECEIVE_BYTES)):
            data += more
        self._early = data[length:]
        return data[:length]

    def receive_all(self) -> bytes:
        """Everything up to the end of the stream."""
        parts, self._early = [self._early], b""
        while more := self.socket.recv(RECEIVE_BYTES):
            parts.append(more)
        return b"".join(parts)


def secure(
    address: tuple[str, int], server_name: str, ca_file: Path, certificate: Certificate | None = None
) -> ssl.SSLSocket:
    """A verified TLS connection, ALPN http/1.1."""
    context = ssl.create_default_context(cafile=str(ca_file))
    context.set_alpn_protocols(["http/1.1"])
    if certificate:
        context.load_cert_chain(certificate.cert_file, certificate.key_file)
    connection = socket.create_connection(address, scaled(TIMEOUT_S))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        return context.wrap_socket(connection, server_hostname=server_name, suppress_ragged_eofs=False)
    except BaseException:
        connection.close()
        raise


def connect(connection: ssl.SSLSocket, destination: str, headers: Mapping[str, str]) -> Tunnel:
    """Send one CONNECT and read the head of its answer."""
    lines = [f"CONNECT {destination} HTTP/1.1", f"Host: {destination}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return Tunnel(connection, _read_reply(connection))


def _read_reply(connection: ssl.SSLSocket) -> Reply:
    data = b""
    while HEAD_END not in data:
        more = connection.recv(RECEIVE_BYTES)
        if not more:
            raise ConnectionError(f"the gateway closed after {data!r}")
        data += more
    head, _, rest = data.partition(HEAD_END)
    status_line, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    return Reply(int(status_line.split()[1]), headers, rest)
