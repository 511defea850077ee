"""Connects ``requests`` to a gateway through its forward proxy, with the same protocol code as a tunnel.

``requests`` supports HTTP proxies but not SOCKS5. It would also send a clear-text request to the proxy instead of
through it, so that the proxy's answer could pass for the gateway's. Everything here blocks: for threads and commands,
never for the hub.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssltransport import SSLTransport

from pomagent.errors import GatewayTimedOut, GatewayUnreachable, TunnelError
from pomagent.protocol.forward_proxy import ProxyFailures, negotiate
from pomagent.runtime.deadline import Deadline
from pomagent.settings import ForwardProxy, Gateway, HostPort
from pomagent.transport.tls_context import make_context, why_untrusted

READ_BYTES = 4 * 1024
MAX_TARGETS = 4
"""Maximum addresses of the gateway that are tried through a ``socks5`` proxy, one after the other."""


def connections_through(gateway: Gateway, context: ssl.SSLContext | None, what: str) -> Callable[..., HTTPConnection]:
    """Return the connection class for a ``urllib3`` pool. ``what`` is the subject of its errors."""
    assert gateway.proxy is not None
    path = ProxyPath(gateway, gateway.proxy, context, what)
    return partial(_Plain if context is None else _Secure, path)


class ProxyPath:
    """The path through the proxy to the gateway."""

    def __init__(self, gateway: Gateway, proxy: ForwardProxy, context: ssl.SSLContext | None, what: str) -> None:
        self._gateway = gateway
        self._proxy = proxy
        self._context = context
        self._proxy_context = make_context(proxy.trust) if proxy.scheme == "https" else None
        self._failures = ProxyFailures(proxy, str(gateway.address), what)

    def connect(self) -> Any:
        """Return a socket-like object connected to the gateway. Raises TunnelError, OSError and ssl.SSLError."""
        *others, last = self._targets()
        for target in others:
            try:
                return self._connect_to(target)
            except (GatewayUnreachable, GatewayTimedOut):
                pass  # the next address
        return self._connect_to(last)

    def _targets(self) -> list[HostPort]:
        dial_address = self._gateway.dial_address
        if self._proxy.scheme != "socks5":
            return [dial_address]
        found = socket.getaddrinfo(dial_address.host, dial_address.port, type=socket.SOCK_STREAM)
        return [HostPort(str(sockaddr[0]), dial_address.port) for *_, sockaddr in found][:MAX_TARGETS]

    def _connect_to(self, target: HostPort) -> Any:
        sock: Any = self._reach_proxy()
        try:
            if self._proxy_context is not None:
                sock = self._secure_proxy(sock, self._proxy_context)
            self._open_connection(target, sock)
            return self._secure_gateway(sock)
        except BaseException:
            sock.close()
            raise

    def _reach_proxy(self) -> socket.socket:
        address = self._proxy.address
        try:
            return socket.create_connection((address.host, address.port), self._gateway.connect_timeout_s)
        except TimeoutError as error:
            raise self._failures.timed_out("accepts no TCP connection in time; is a firewall in between?") from error
        except OSError as error:
            raise self._failures.unreachable(
                f"accepts no TCP connection: {(error.strerror or str(error)).lower()}; is it up?"
            ) from error

    def _secure_proxy(self, sock: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
        sock.settimeout(self._gateway.tls_timeout_s)
        try:
            return context.wrap_socket(sock, server_hostname=self._proxy.address.host)
        except ssl.SSLCertVerificationError as error:
            why = why_untrusted(error, "forward_proxy", time.time())
            raise self._failures.untrusted(f"has a certificate that is not accepted: {why}") from error
        except ssl.SSLError as error:
            words = (error.reason or str(error)).lower().replace("_", " ")
            raise self._failures.misbehaved(f"does not speak TLS ({words}); check forward_proxy") from error
        except TimeoutError as error:
            raise self._failures.timed_out("does not answer in TLS; is it overloaded?") from error
        except OSError as error:
            raise self._lost(error) from error

    def _open_connection(self, target: HostPort, sock: Any) -> None:
        conversation = negotiate(target, self._failures)
        deadline = Deadline(self._gateway.connect_timeout_s)
        try:
            while not conversation.is_over:
                sock.settimeout(max(0.001, deadline.remaining_s))
                sock.sendall(conversation.pop_outgoing())
                conversation.receive(sock.recv(READ_BYTES))
                if deadline.is_over and not conversation.is_over:
                    raise self._failures.opened_nothing(deadline.budget_s)
        except TimeoutError as error:
            raise self._failures.opened_nothing(deadline.budget_s) from error
        except OSError as error:
            raise self._lost(error) from error

    def _lost(self, error: OSError) -> TunnelError:
        return self._failures.broke_off((error.strerror or str(error)).lower())

    def _secure_gateway(self, sock: Any) -> Any:
        if self._context is None:
            return sock
        sock.settimeout(self._gateway.tls_timeout_s)
        if isinstance(sock, ssl.SSLSocket):
            return SSLTransport(sock, self._context, self._gateway.address.host)
        return self._context.wrap_socket(sock, server_hostname=self._gateway.address.host)


class _Plain(HTTPConnection):
    def __init__(self, path: ProxyPath, **options: Any) -> None:
        super().__init__(**options)
        self._path = path

    def connect(self) -> None:
        self.sock = self._path.connect()


class _Secure(HTTPSConnection):
    def __init__(self, path: ProxyPath, **options: Any) -> None:
        super().__init__(**options)
        self._path = path

    def connect(self) -> None:
        self.sock = self._path.connect()
        self.is_verified = True  # as far as the gateway's settings require
