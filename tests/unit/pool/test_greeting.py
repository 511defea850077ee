"""Which server sends these first bytes, and which bytes are no greeting."""

import struct

import pytest

from pomagent.pool.greeting import PROMPT_S, protocol_of

MYSQL = b"\x4a\x00\x00\x00\x0a8.0.36\x00" + b"x" * 60
MARIADB_BLOCKED = b"\x67\x00\x00\x00\xff\x69\x04Host '10.0.0.7' is blocked because of many connection errors"
POSTGRES = b"E" + struct.pack(">I", 110) + b"SFATAL\x00VFATAL\x00C57014\x00Mcanceling authentication due to timeout\x00"


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "ssh"),
        (MYSQL, "mysql"),
        (MARIADB_BLOCKED, "mysql"),
        (POSTGRES, "postgres"),
        (b"220 mail.example.com ESMTP\r\n", "speaks-first"),
        (b"RFB 003.008\n", "speaks-first"),
        (b"\xff\xfd\x18\xff\xfd\x20", "speaks-first"),
        (b"Ex", "speaks-first"),
        (b"HTTP/1.0 408 Request Time-out\r\n", None),
        (b"-ERR max number of clients reached\r\n", None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_first_bytes_identify_the_protocol(first, expected):
    assert protocol_of(first, 0.0) == expected


@pytest.mark.parametrize("first", [b"SSH-2.0-slow\r\n", MYSQL, POSTGRES])
def test_known_greeting_counts_at_any_time(first):
    assert protocol_of(first, 1000.0) is not None


@pytest.mark.parametrize(("after_s", "expected"), [(PROMPT_S, "speaks-first"), (PROMPT_S + 0.1, None)])
def test_unknown_greeting_counts_only_if_it_is_prompt(after_s, expected):
    assert protocol_of(b"220 ready\r\n", after_s) == expected


@pytest.mark.parametrize(
    "first", [MYSQL[:5], b"\x4a\x00\x00\x01\x0a8.0.36", b"\x00\x00\x80\x00\x0a8.0.36", b"E\x00\x00"]
)
def test_similar_packet_is_not_taken_for_a_greeting(first):
    assert protocol_of(first, 1000.0) is None
