"""TLS contexts for gateways (TLS 1.2 or newer, verified, with ALPN), and remedies for untrusted certificates."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

from pomagent.settings import Trust
from pomagent.transport.cipher_order import prefer_aes_128

H2 = "h2"
HTTP1 = "http/1.1"
"""ALPN protocol where the gateway does not offer ``h2``, and for everything but tunnels."""

_TIME_REMEDIES = {9: "have its owner issue one that is valid now", 10: "have its owner renew it"}
"""Remedies for X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED, if this host's clock is right."""

_ENABLE_KTLS = 1 << 3
"""OpenSSL's SSL_OP_ENABLE_KTLS, which Python names from 3.12 on.

A host's policy may set it. With it, a peek at the socket, and reads after this side has ended, would return plaintext
or fail at each record that carries no data.
"""


def make_context(trust: Trust) -> ssl.SSLContext:
    """Build the TLS context that ``trust`` describes. Blocks the thread for milliseconds while it reads files.

    Raises OSError and ssl.SSLError for files that cannot be read or used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([H2, HTTP1] if trust.with_http2 else [HTTP1])
    prefer_aes_128(context)
    context.options |= ssl.OP_NO_RENEGOTIATION  # TLS 1.2: a handshake would stall an active tunnel
    context.options &= ~_ENABLE_KTLS
    if trust.verify:
        _load_authorities(context, trust)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if trust.client_cert_file is not None:
        context.load_cert_chain(trust.client_cert_file, trust.client_key_file)
    return context


def _load_authorities(context: ssl.SSLContext, trust: Trust) -> None:
    if trust.with_system or (trust.ca_file is None and not trust.ca_pem):
        context.load_default_certs()
    if trust.ca_file is not None:
        context.load_verify_locations(cafile=trust.ca_file)
    if trust.ca_pem:
        context.load_verify_locations(cadata=trust.ca_pem)


def why_untrusted(error: ssl.SSLCertVerificationError, setting: str, now: float) -> str:
    """Return what is wrong with a certificate and the remedy.

    ``setting`` names the setting that led to the certificate's owner. ``now`` is this host's time.
    """
    problem = error.verify_message.rstrip(".")
    if error.verify_code not in _TIME_REMEDIES:
        return f"{problem}; set ca_file for a private CA, or {setting} to a name that the certificate covers"
    today = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{problem}; set this host's clock if it is not {today} now, else {_TIME_REMEDIES[error.verify_code]}"
