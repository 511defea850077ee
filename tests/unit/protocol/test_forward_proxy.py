"""Any answer of a forward proxy opens the path, or is an error with a remedy and the phase "proxy"."""

from base64 import b64encode
from collections.abc import Iterable
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from pomagent.errors import (
    GatewayMisbehaved,
    GatewayRefused,
    GatewayUnreachable,
    ProxyRefused,
    Recovery,
    TunnelError,
)
from pomagent.protocol.connect import MAX_HEAD_BYTES
from pomagent.protocol.forward_proxy import Negotiation, ProxyFailures, negotiate
from pomagent.settings import ForwardProxy, HostPort, ProxyScheme

TARGET = HostPort("edge.example.com", 443)
SECRET = "hunter2"


def failures(scheme: ProxyScheme = "http", *, with_user: bool = False) -> ProxyFailures:
    credentials = SecretStr(f"me:{SECRET}") if with_user else None
    return ProxyFailures(ForwardProxy(scheme, HostPort("proxy.test", 3128), credentials), str(TARGET), "db:5432")


def talk(scheme: ProxyScheme = "http", *, with_user: bool = False) -> Negotiation:
    return negotiate(TARGET, failures(scheme, with_user=with_user))


def feed(negotiation: Negotiation, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        if negotiation.is_over:
            return
        negotiation.pop_outgoing()
        negotiation.receive(piece)


def failure(negotiation: Negotiation, *pieces: bytes) -> TunnelError:
    with pytest.raises(TunnelError) as caught:
        feed(negotiation, pieces)
    assert caught.value.phase == "proxy"
    assert caught.value.status is None, "it is not the gateway's"
    assert not isinstance(caught.value, GatewayRefused)
    assert str(caught.value).startswith("db:5432: the forward proxy proxy.test:3128 ")
    assert str(caught.value).endswith(" (via edge.example.com:443)")
    assert SECRET not in str(caught.value)
    return caught.value


class TestHttp:
    def test_connect_names_the_gateway_and_port(self) -> None:
        request = talk().pop_outgoing()
        assert request.startswith(b"CONNECT edge.example.com:443 HTTP/1.1\r\nHost: edge.example.com:443\r\n")
        assert b"authorization" not in request.lower()

    def test_first_request_carries_basic_credentials(self) -> None:
        request = talk(with_user=True).pop_outgoing()
        assert b"Proxy-Authorization: Basic " + b64encode(f"me:{SECRET}".encode()) + b"\r\n" in request

    def test_request_is_sent_once(self) -> None:
        negotiation = talk()
        assert negotiation.pop_outgoing()
        assert negotiation.pop_outgoing() == b""

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 Connection established\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nProxy-Agent: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ],
    )
    def test_any_2xx_opens_the_path(self, answer: bytes) -> None:
        at_once, in_pieces = talk(), talk()
        at_once.receive(answer)
        for byte in answer:
            assert not in_pieces.is_over
            in_pieces.receive(bytes([byte]))
        assert at_once.is_over
        assert in_pieces.is_over

    @pytest.mark.parametrize(
        ("status", "kind", "recovery", "words"),
        [
            (
                407,
                ProxyRefused,
                Recovery.OPERATOR,
                "refuses CONNECT with 407; set a user and a password in forward_proxy_credentials_file",
            ),
            (403, ProxyRefused, Recovery.OPERATOR, "forbids connections to edge.example.com:443 (403)"),
            (401, ProxyRefused, Recovery.OPERATOR, "forbids connections"),
            (405, ProxyRefused, Recovery.OPERATOR, "does not take CONNECT (405); check scheme and port"),
            (302, ProxyRefused, Recovery.OPERATOR, "log in to the network first"),
            (511, ProxyRefused, Recovery.OPERATOR, "log in to the network first"),
            (418, ProxyRefused, Recovery.OPERATOR, "check its log"),
            (502, GatewayUnreachable, Recovery.RETRY, "cannot connect to edge.example.com:443 (502)"),
            (503, GatewayUnreachable, Recovery.RETRY, "cannot connect"),
            (504, GatewayUnreachable, Recovery.RETRY, "cannot connect"),
        ],
    )
    def test_each_refusal_has_its_remedy(
        self, status: int, kind: type[TunnelError], recovery: Recovery, words: str
    ) -> None:
        error = failure(talk(), f"HTTP/1.1 {status} X\r\ncontent-length: 900\r\n\r\n".encode())
        assert (type(error), error.recovery) == (kind, recovery)
        assert words in str(error)

    def test_407_to_credentials_reports_them_as_wrong(self) -> None:
        error = failure(talk(with_user=True), b"HTTP/1.1 407 No\r\n\r\n")
        assert "mend the user and the password in forward_proxy_credentials_file" in str(error)

    @pytest.mark.parametrize(
        "answer",
        [b"SSH-2.0-OpenSSH_9.2p1\r\n", b"\x05\x00", b"HTTP/1.1 200 OK\r\n\r\nhello", b"\x15\x03\x01\x00\x02\x02\x46"],
    )
    def test_garbage_is_not_a_proxy(self, answer: bytes) -> None:
        error = failure(talk(), answer, b"\r\n\r\n")
        assert isinstance(error, GatewayMisbehaved)
        assert "as an HTTP proxy (" in str(error)

    @pytest.mark.parametrize("before", [[], [b"HTTP/1.1 2"]])
    def test_end_without_an_answer_is_unreachable(self, before: list[bytes]) -> None:
        assert isinstance(failure(talk(), *before, b""), GatewayUnreachable)

    def test_endless_head_is_misbehaviour(self) -> None:
        error = failure(
            talk(), b"HTTP/1.1 200 OK\r\n", *[b"x: " + b"y" * 8000 + b"\r\n"] * (MAX_HEAD_BYTES // 8000 + 1)
        )
        assert isinstance(error, GatewayMisbehaved)


class TestSocks:
    def test_handshake_opens_the_path(self) -> None:
        negotiation = talk("socks5h", with_user=True)
        assert negotiation.pop_outgoing() == b"\x05\x02\x00\x02"
        negotiation.receive(b"\x05\x02")
        assert negotiation.pop_outgoing() == b"\x01\x02me\x07" + SECRET.encode()
        negotiation.receive(b"\x01\x00")
        assert TARGET.host.encode() in negotiation.pop_outgoing()
        negotiation.receive(bytes([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]))
        assert negotiation.is_over

    @pytest.mark.parametrize(
        ("pieces", "kind", "words"),
        [
            ([b"\x05\xff"], ProxyRefused, "set a user and a password"),
            (
                [b"\x05\x00", b"\x05\x02\x00\x01"],
                ProxyRefused,
                "refuses to connect to edge.example.com:443 (not allow",
            ),
            (
                [b"\x05\x00", b"\x05\x05\x00\x01"],
                GatewayUnreachable,
                "cannot connect to edge.example.com:443 (conn",
            ),
            ([b"HTTP/1.1 400 Bad\r\n"], GatewayMisbehaved, "does not answer as a SOCKS5 proxy ("),
            ([b"\x05\x00", b""], GatewayUnreachable, "closed the connection in the SOCKS handshake"),
        ],
    )
    def test_each_refusal_has_its_remedy(self, pieces: list[bytes], kind: type[TunnelError], words: str) -> None:
        error = failure(talk("socks5"), *pieces)
        assert type(error) is kind
        assert words in str(error)

    def test_rejected_user_has_its_remedy(self) -> None:
        error = failure(talk("socks5", with_user=True), b"\x05\x02", b"\x01\x01")
        assert "refuses this user; mend the user and the password" in str(error)


@given(
    st.sampled_from(get_args(ProxyScheme)),
    st.booleans(),
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [b"\x05\x00", b"\x05\x02", b"\x01\x00", b"\x05\x00\x00\x03", b"HTTP/1.1 200 OK\r\n", b"\r\n"]
            ),
            st.integers(100, 999).map(lambda status: f"HTTP/1.1 {status} x\r\n".encode()),
        ),
        max_size=8,
    ),
)
def test_any_bytes_open_the_path_or_raise_a_tunnel_error(
    scheme: ProxyScheme, with_user: bool, pieces: list[bytes]
) -> None:
    negotiation = talk(scheme, with_user=with_user)
    error: TunnelError | None = None
    try:
        feed(negotiation, [*pieces, b""])
    except TunnelError as raised:
        error = raised
    assert negotiation.is_over or (error is not None and error.phase == "proxy")
    assert error is None or error.recovery is not Recovery.REAUTHENTICATE
