"""What a server that speaks first has said: the only traffic that the agent looks into. Pure."""

from __future__ import annotations

from pomagent.pool.presets import SPEAKS_FIRST

GREETING_BYTES = 64
"""Enough to know any of them."""
PROMPT_S = 5.0
"""A server that speaks first does so at once; what comes later may be a complaint about our silence."""

_MYSQL_VERSION, _MYSQL_ERROR = 10, 0xFF
_COMPLAINTS = (b"HTTP/", b"-ERR", b"<")
"""What servers that wait to be spoken to say before they hang up."""


def protocol_of(first: bytes, after_s: float) -> str | None:
    """The protocol of a server whose first words, so long after it accepted, came unasked; None if that tells nothing.

    An SSH or MySQL greeting is known at any time; some take their time to look up who connects.
    """
    if first.startswith(b"SSH-"):
        return "ssh"
    if _is_mysql(first):
        return "mysql"
    if _is_postgres(first):
        return "postgres"
    if not first or after_s > PROMPT_S or first.startswith(_COMPLAINTS):
        return None
    return SPEAKS_FIRST


def _is_mysql(first: bytes) -> bool:
    """Its first packet: length in 3 bytes, number 0, then a handshake of version 10 or an error."""
    if len(first) < 6 or first[3] != 0:
        return False
    length = int.from_bytes(first[:3], "little")
    return first[4] in (_MYSQL_VERSION, _MYSQL_ERROR) and 5 < length < 4096


def _is_postgres(first: bytes) -> bool:
    """An error message of version 3, which it sends to those who do not log in: 'E', length, 'S', severity."""
    return len(first) > 6 and first[:1] == b"E" and first[5:6] == b"S" and int.from_bytes(first[1:5]) < 4096
