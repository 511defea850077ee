"""What is negotiated with a real gateway: resumption only with a verified gateway, and the cipher."""

import socket
from collections.abc import Callable
from typing import Literal

import pytest
from pydantic import SecretStr

from pomagent.credentials.token import Token
from pomagent.errors import GatewayUntrusted
from pomagent.gateway.dialer import Dialer
from pomagent.gateway.tunnel_opener import TunnelOpener
from pomagent.protocol.lifecycle import Reason
from pomagent.settings import Credential, HostPort, Route, Trust
from pomagent.settings import Gateway as Table
from pomagent.transport import tls_resumption
from pomagent.transport.cipher_order import PREFERRED
from pomagent.transport.http2_stream import Http2Stream
from pomagent.transport.resolver import Resolver
from pomagent.transport.tls_context import make_context
from pomagent.transport.tls_stream import TlsStream
from tests.fakes.log import FakeLog
from tests.gateway.certificates import Authority
from tests.gateway.facade import Gateway, destination
from tests.gateway.ports import LOOPBACK


def opener(
    gateway: Gateway, trust: Trust, route: str = "echo", transport: Literal["http1", "http2"] = "http1"
) -> Callable[[], bool]:  # fmt: skip
    """Return a function that opens and closes a tunnel, and returns whether its handshake resumed a session."""
    table = Table(
        "demo", HostPort(gateway.host, gateway.port), connect_to=HostPort(LOOPBACK, gateway.port), trust=trust,
        transport=transport,
    )  # fmt: skip
    host, _, port = destination(route).rpartition(":")
    log, token_of_it = FakeLog().log, SecretStr(gateway.token)
    token = Token(Credential("default", "env", token=token_of_it), lambda _: token_of_it, log)
    way = Route(route, HostPort(LOOPBACK, 1), HostPort(host, int(port)), table)
    connector = TunnelOpener(way, Dialer(table, make_context(table.tunnel_trust), Resolver()), token, log)

    def open_tunnel() -> bool:
        tunnel = connector.open(connector.secure())
        assert tunnel.transport == transport
        stream = tunnel.stream.transport if isinstance(tunnel.stream, Http2Stream) else tunnel.stream
        assert isinstance(stream, TlsStream)
        was_resumed = stream.was_resumed
        assert tunnel.certificate_expires, "known of a short handshake too"
        tunnel.close(Reason.ABORTED)
        return was_resumed

    return open_tunnel


@pytest.mark.parametrize("transport", ["http1", "http2"])
def test_session_of_a_verified_gateway_is_resumed(gateway: Gateway, transport: Literal["http1", "http2"]) -> None:
    open_tunnel = opener(gateway, Trust(ca_file=gateway.ca_file), transport=transport)
    assert [open_tunnel() for _ in range(4)] == [False, True, True, True]


def test_another_trust_verifies_the_certificate_again(gateway: Gateway, other_authority: Authority) -> None:
    open_tunnel = opener(gateway, Trust(ca_file=gateway.ca_file))
    assert [open_tunnel(), open_tunnel()] == [False, True]
    with pytest.raises(GatewayUntrusted):
        opener(gateway, Trust(ca_file=other_authority.ca_file))()


def test_gateway_with_another_certificate_is_verified_again(
    own_gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_resumption, "RELEARN_S", 0.0)
    open_tunnel = opener(own_gateway, Trust(ca_file=own_gateway.ca_file))
    assert [open_tunnel(), open_tunnel()] == [False, True]
    own_gateway.edge.replace_listener(certificate=own_gateway.authority.issue_server("renewed"))
    assert [open_tunnel(), open_tunnel()] == [False, True]
    own_gateway.edge.replace_listener(certificate=own_gateway.untrusted_certificate)
    with pytest.raises(GatewayUntrusted):
        open_tunnel()


def test_gateway_that_follows_the_clients_order_picks_aes_128(gateway: Gateway) -> None:
    context = make_context(Trust(ca_file=gateway.ca_file))
    with (
        socket.create_connection((LOOPBACK, gateway.port)) as sock,
        context.wrap_socket(sock, server_hostname=gateway.host) as secured,
    ):
        assert secured.cipher() == (PREFERRED, "TLSv1.3", 128)
