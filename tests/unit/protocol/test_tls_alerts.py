"""Reasons of failed handshakes, by OpenSSL's names for TLS alerts."""

from __future__ import annotations

import pytest

from pomagent.protocol.tls_alerts import demands_certificate, is_old_version


@pytest.mark.parametrize(
    ("reason", "certificate", "version"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", True, False),
        ("TLSV1_ALERT_UNKNOWN_CA", True, False),
        ("SSLV3_ALERT_BAD_CERTIFICATE", True, False),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", True, False),
        ("TLSV1_ALERT_PROTOCOL_VERSION", False, True),
        ("UNSUPPORTED_PROTOCOL", False, True),
        ("WRONG_VERSION_NUMBER", False, False),
        ("", False, False),
    ],
)
def test_alert_names_the_cause(reason: str, certificate: bool, version: bool) -> None:
    assert (demands_certificate(reason), is_old_version(reason)) == (certificate, version)
