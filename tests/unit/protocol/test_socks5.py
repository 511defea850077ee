"""The client's side of SOCKS5, byte by byte."""

import pytest

from pomagent.protocol.socks5 import REPLIES, Malformed, Refusal, Socks5

GRANTED = bytes([5, 0, 0, 1, 0, 0, 0, 0, 0, 0])


def fed(socks: Socks5, data: bytes) -> bytes:
    socks.receive(data)
    return socks.pop_outgoing()


def asked(host: str = "edge.test", port: int = 443) -> Socks5:
    """A handshake after its request was sent."""
    socks = Socks5(host, port)
    socks.pop_outgoing()
    fed(socks, b"\x05\x00")
    return socks


def test_client_without_a_user_offers_no_authentication_only() -> None:
    assert Socks5("edge.test", 443).pop_outgoing() == b"\x05\x01\x00"


def test_client_with_a_user_offers_both_methods() -> None:
    socks = Socks5("edge.test", 443, "me", "pass:word")
    assert socks.pop_outgoing() == b"\x05\x02\x00\x02"
    assert fed(socks, b"\x05\x02") == b"\x01\x02me\x09pass:word"
    assert fed(socks, b"\x01\x00").startswith(b"\x05\x01\x00\x03")


@pytest.mark.parametrize(
    ("host", "encoded"),
    [
        ("edge.test", b"\x03\x09edge.test"),
        ("10.1.2.3", b"\x01\x0a\x01\x02\x03"),
        ("2001:db8::1", b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01"),
    ],
)
def test_the_target_is_an_address_or_a_name(host: str, encoded: bytes) -> None:
    socks = Socks5(host, 8443)
    socks.pop_outgoing()
    assert fed(socks, b"\x05\x00") == b"\x05\x01\x00" + encoded + b"\x20\xfb"


@pytest.mark.parametrize(
    "reply",
    [GRANTED, b"\x05\x00\x00\x03\x02ab\x00\x50", b"\x05\x00\x00\x04" + bytes(18), b"\x05\x00\x00\x03\x00\x00\x50"],
)
def test_connection_opens_with_the_last_byte_of_the_reply(reply: bytes) -> None:
    socks = asked()
    for byte in reply:
        assert not socks.is_open
        socks.receive(bytes([byte]))
    assert socks.is_open


@pytest.mark.parametrize("code", REPLIES)
def test_every_refusal_has_its_words(code: int) -> None:
    with pytest.raises(Refusal) as refusal:
        asked().receive(bytes([5, code, 0, 1]))
    assert str(refusal.value) == REPLIES[code]
    assert refusal.value.is_final is (code in {2, 7, 8})
    assert not refusal.value.is_for_credentials


def test_server_that_requires_a_user_is_a_refusal() -> None:
    with pytest.raises(Refusal) as refusal:
        Socks5("edge.test", 443).receive(b"\x05\xff")
    assert refusal.value.is_for_credentials


def test_server_that_accepts_neither_method_is_a_refusal() -> None:
    with pytest.raises(Refusal) as refusal:
        Socks5("edge.test", 443, "me", "x").receive(b"\x05\xff")
    assert refusal.value.is_final
    assert not refusal.value.is_for_credentials


def test_rejected_user_is_a_refusal() -> None:
    socks = Socks5("edge.test", 443, "me", "x")
    socks.receive(b"\x05\x02")
    with pytest.raises(Refusal) as refusal:
        socks.receive(b"\x01\x01")
    assert refusal.value.is_for_credentials


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1 400 Bad Request\r\n", b"\x04\x00", b"\x05\x02", b"\x05\x01", b"\x05\x80"],
)
def test_malformed_greeting_is_rejected(data: bytes) -> None:
    with pytest.raises(Malformed):
        Socks5("edge.test", 443).receive(data)


@pytest.mark.parametrize("data", [b"\x05\x09\x00\x01", b"\x05\x00\x00\x02", GRANTED + b"x", b"\x00"])
def test_malformed_reply_is_rejected(data: bytes) -> None:
    with pytest.raises(Malformed):
        asked().receive(data)
