"""Local addresses are parsed, and collisions are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from pomagent.config.listen import MAX_SOCKET_PATH, Listeners, is_loopback, parse_listen
from pomagent.protocol.route_url import AddressError
from pomagent.settings import HostPort

HERE = Path("/etc/pomagent")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:5432", HostPort("127.0.0.1", 5432)),
        ("127.0.0.1:0", HostPort("127.0.0.1", 0)),
        ("localhost:5432", HostPort("127.0.0.1", 5432)),
        ("[::1]:5432", HostPort("::1", 5432)),
        ("[0:0::1]:5432", HostPort("::1", 5432)),
        ("unix:/run/x.sock", Path("/run/x.sock")),
        ("unix:x.sock", HERE / "x.sock"),
    ],
)
def test_an_address_is_read(text: str, expected: HostPort | Path) -> None:
    assert parse_listen(text, HERE) == expected


@pytest.mark.parametrize("text", ["", ":5432", "5432", "127.0.0.1", "bastion:5432", "*:5432", "unix:", "::1:5432"])
def test_text_that_is_not_a_local_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_listen(text, HERE)


@pytest.mark.parametrize(("length", "is_allowed"), [(-1, True), (0, True), (1, False)])
def test_a_socket_path_has_at_most_the_length_that_the_kernel_takes(length: int, is_allowed: bool) -> None:
    text = "unix:/" + "x" * (MAX_SOCKET_PATH - 1 + length)
    if is_allowed:
        assert parse_listen(text, HERE)
    else:
        with pytest.raises(AddressError, match="longer than 107 bytes"):
            parse_listen(text, HERE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("unix:/x", True),
        ("128.0.0.1:1", False),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("[::ffff:127.0.0.1]:1", False),
    ],
)
def test_loopback_is_distinguished_from_other_addresses(text: str, expected: bool) -> None:
    assert is_loopback(parse_listen(text, HERE)) is expected


@pytest.mark.parametrize(
    ("first", "second", "collide"),
    [
        ("127.0.0.1:1", "127.0.0.1:1", True),
        ("127.0.0.1:1", "127.0.0.1:2", False),
        ("127.0.0.1:1", "127.0.0.2:1", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("0.0.0.0:1", "127.0.0.1:1", True),
        ("127.0.0.1:1", "0.0.0.0:1", True),
        ("[::]:1", "[::1]:1", True),
        ("[::]:1", "127.0.0.1:1", False),
        ("[::1]:1", "127.0.0.1:1", False),
        ("unix:/x", "unix:/x", True),
        ("unix:/x", "unix:/y", False),
    ],
)
def test_an_address_belongs_to_who_claims_it_first(first: str, second: str, collide: bool) -> None:
    listeners = Listeners()
    assert listeners.claim(parse_listen(first, HERE), "first") == ""
    assert listeners.claim(parse_listen(second, HERE), "second") == ("first" if collide else "")
