"""TLS alerts by OpenSSL's names, as far as they explain to an operator why a handshake failed (RFC 8446 §6)."""

from __future__ import annotations

_CLIENT_CERTIFICATE = ("CERTIFICATE_REQUIRED", "UNKNOWN_CA", "BAD_CERTIFICATE", "HANDSHAKE_FAILURE")
_OLD_VERSION = ("UNSUPPORTED_PROTOCOL", "PROTOCOL_VERSION")


def demands_certificate(reason: str) -> bool:
    """Return whether the server requires a client certificate, or another one (wire contract §3.2)."""
    return any(name in reason for name in _CLIENT_CERTIFICATE)


def is_old_version(reason: str) -> bool:
    """Return whether the two sides share no version of TLS."""
    return any(name in reason for name in _OLD_VERSION)
