"""Recognizes a server by the first bytes that it sends unasked, the only traffic that the agent inspects. Pure."""

from __future__ import annotations

from pomagent.pool.presets import SPEAKS_FIRST

GREETING_BYTES = 64
"""Maximum bytes of a greeting that are inspected. This is enough to recognize every protocol below."""
PROMPT_S = 5.0
"""Seconds within which a server that speaks first does so. Later bytes may be a complaint that the client is silent."""

_MYSQL_VERSION, _MYSQL_ERROR = 10, 0xFF
_COMPLAINTS = (b"HTTP/", b"-ERR", b"<")
"""What servers that expect the client to speak first send before they hang up."""


def protocol_of(first: bytes, after_s: float) -> str | None:
    """Return the protocol of a server that sent these bytes unasked, or None if they prove nothing.

    ``after_s`` is the time since the CONNECT was accepted. SSH and MySQL greetings are recognized at any time, because
    some servers look up the client's name first.
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
    """Recognize the first packet: length in 3 bytes, number 0, then a handshake of version 10 or an error."""
    if len(first) < 6 or first[3] != 0:
        return False
    length = int.from_bytes(first[:3], "little")
    return first[4] in (_MYSQL_VERSION, _MYSQL_ERROR) and 5 < length < 4096


def _is_postgres(first: bytes) -> bool:
    """Recognize the error of protocol 3 that ends a connection without a login: 'E', length, 'S', severity."""
    return len(first) > 6 and first[:1] == b"E" and first[5:6] == b"S" and int.from_bytes(first[1:5]) < 4096
