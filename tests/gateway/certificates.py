"""A private certificate authority and what it issues, as PEM files."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_NAMES = ("localhost", "gateway.example.test", "*.example.test", "127.0.0.1", "::1")
A_MONTH = timedelta(days=30)
A_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, each in a PEM file."""

    cert_file: Path
    key_file: Path


class Authority:
    """Issues certificates that need its ``ca_file`` to be trusted."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self._name = _common_name(f"pomagent test {name}")
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca_file = directory / f"{name}.pem"
        _write_certificate(self.ca_file, self._sign_itself())

    def issue_server(
        self, file_name: str = "server", names: tuple[str, ...] = SERVER_NAMES, expires_in: timedelta = A_MONTH
    ) -> Certificate:
        """A server certificate for these host names and addresses. A negative ``expires_in`` has expired."""
        subject_names = x509.SubjectAlternativeName([_general_name(name) for name in names])
        return self._issue(file_name, expires_in, ExtendedKeyUsageOID.SERVER_AUTH, subject_names)

    def issue_client(
        self, file_name: str = "client", expires_in: timedelta = A_MONTH, names: tuple[str, ...] = ()
    ) -> Certificate:
        """A client certificate for mutual TLS. The more names, the larger."""
        subject_names = x509.SubjectAlternativeName([_general_name(name) for name in names]) if names else None
        return self._issue(file_name, expires_in, ExtendedKeyUsageOID.CLIENT_AUTH, subject_names)

    def _sign_itself(self) -> x509.Certificate:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        return self._sign(
            self._builder(self._name, self._key, A_MONTH)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
        )

    def _issue(
        self,
        file_name: str,
        expires_in: timedelta,
        purpose: x509.ObjectIdentifier,
        subject_names: x509.SubjectAlternativeName | None = None,
    ) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_common_name(file_name), key, expires_in)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if subject_names:
            builder = builder.add_extension(subject_names, critical=False)
        return self._save(file_name, self._sign(builder), key)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, expires_in: timedelta
    ) -> x509.CertificateBuilder:
        """What every certificate has. The key identifiers are there because Python 3.13 insists on them."""
        now = datetime.now(UTC)
        end = now + expires_in
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, end) - A_DAY)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(issuer_key, critical=False)
        )

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        return builder.sign(self._key, hashes.SHA256())

    def _save(self, file_name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Certificate:
        saved = Certificate(self._directory / f"{file_name}.pem", self._directory / f"{file_name}.key")
        _write_certificate(saved.cert_file, certificate)
        _write_key(saved.key_file, key)
        return saved


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
