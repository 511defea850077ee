"""TLS contexts for gateways: TLS 1.2 or newer, verified, with ALPN; what to do if a certificate fails."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

from pomagent.settings import Trust
from pomagent.transport.cipher_order import prefer_aes_128

H2 = "h2"
HTTP1 = "http/1.1"
"""The gateway's choice where it does not offer ``h2``, and for everything but tunnels."""


_ABOUT_TIME = {9: "have its owner issue one that is valid now", 10: "have its owner renew it"}
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED: the certificate's fault, or our clock's."""


_IN_THE_KERNEL = 1 << 3
"""OpenSSL's SSL_OP_ENABLE_KTLS, which Python names from 3.12 on. A host's policy may set it; but then a peek at the
socket, and what is read from it after our end, would be plaintext, or an error at each record that is no data."""


def make_context(trust: Trust) -> ssl.SSLContext:
    """Build what ``trust`` describes. Blocks for milliseconds (it reads files): not for the hub.

    Raises OSError and ssl.SSLError for files that cannot be read or used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([H2, HTTP1] if trust.with_http2 else [HTTP1])
    prefer_aes_128(context)
    context.options |= ssl.OP_NO_RENEGOTIATION  # TLS 1.2: a tunnel in use would have to wait for a handshake
    context.options &= ~_IN_THE_KERNEL
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
    """What is wrong with a certificate and what to do; ``setting`` leads to its owner, ``now`` is this host's time."""
    said = error.verify_message.rstrip(".")
    if error.verify_code not in _ABOUT_TIME:
        return f"{said}; set ca_file for a private CA, or {setting} to a name that the certificate covers"
    today = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{said}; set this host's clock if it is not {today} now, else {_ABOUT_TIME[error.verify_code]}"
