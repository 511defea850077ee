"""TLS contexts for gateways: TLS 1.2 or newer, verified, ALPN ``http/1.1``."""

from __future__ import annotations

import ssl

from pomagent.settings import Trust

ALPN = ["http/1.1"]
"""One tunnel per connection: tunnels multiplexed over HTTP/2 lose data at real gateways (wire contract §7.2)."""


def make_context(trust: Trust) -> ssl.SSLContext:
    """Build what ``trust`` describes. Blocks for milliseconds (it reads files): not for the hub.

    Raises OSError and ssl.SSLError for files that cannot be read or used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(ALPN)
    context.options |= ssl.OP_NO_RENEGOTIATION  # TLS 1.2: a tunnel in use would have to wait for a handshake
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
