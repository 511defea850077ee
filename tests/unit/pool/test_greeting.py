"""Whose first words these are, and when they are none."""

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
def test_the_first_words_tell_the_protocol(first, expected):
    assert protocol_of(first, 0.0) == expected


@pytest.mark.parametrize("first", [b"SSH-2.0-slow\r\n", MYSQL, POSTGRES])
def test_a_greeting_that_is_known_counts_whenever_it_comes(first):
    assert protocol_of(first, 1000.0) is not None


@pytest.mark.parametrize(("after_s", "expected"), [(PROMPT_S, "speaks-first"), (PROMPT_S + 0.1, None)])
def test_others_only_while_they_are_prompt(after_s, expected):
    assert protocol_of(b"220 ready\r\n", after_s) == expected


@pytest.mark.parametrize(
    "first", [MYSQL[:5], b"\x4a\x00\x00\x01\x0a8.0.36", b"\x00\x00\x80\x00\x0a8.0.36", b"E\x00\x00"]
)
def test_what_only_resembles_a_packet_of_theirs_is_neither(first):
    assert protocol_of(first, 1000.0) is None
