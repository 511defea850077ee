"""Certificates and keys are read and checked with the file, and a replaced one is a change."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pomagent.errors import ConfigError
from pomagent.settings import Settings, Trust

Load: TypeAlias = Callable[..., Settings]
Write: TypeAlias = Callable[..., Path]
PrivateFormat = serialization.PrivateFormat


def _pair(password: bytes | None = None, form: PrivateFormat = PrivateFormat.PKCS8) -> tuple[bytes, bytes]:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    return certificate.public_bytes(pem), key.private_bytes(pem, form, encryption)


@pytest.fixture
def trust(load_text: Load) -> Callable[[str], Trust]:
    """Loads a gateway with these keys."""

    def load_trust(keys: str) -> Trust:
        gateway = f'[gateways.corp]\nurl = "https://edge.example.com"\n{keys}\n'
        route = '[[routes]]\nfrom = "a:1"\nlisten = "127.0.0.1:1"\ngateway = "corp"\n'
        settings = load_text(gateway + route)
        assert all(path in settings.watched for path in Path.cwd().glob("*.pem"))
        return settings.routes[0].gateway.trust

    return load_trust


NONSENSE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
PAIR = 'client_cert_file = "cert.pem"\nclient_key_file = "key.pem"'


def test_a_ca_and_a_pair_are_accepted_with_absolute_paths(trust: Callable[[str], Trust], write: Write) -> None:
    certificate, key = _pair()
    ca, cert, private = (
        write("ca.pem", "# Ümläut\n".encode() + certificate),
        write("cert.pem", certificate),
        write("key.pem", key),
    )
    found = trust(f'ca_file = "ca.pem"\n{PAIR}')
    assert (ca, cert, private) == (found.ca_file, found.client_cert_file, found.client_key_file)


def test_certificate_and_key_may_share_a_file(trust: Callable[[str], Trust], write: Write) -> None:
    write("cert.pem", b"".join(_pair()))
    assert trust('client_cert_file = "cert.pem"').client_key_file is None


def test_equal_contents_have_equal_digests_and_others_do_not(trust: Callable[[str], Trust], write: Write) -> None:
    first, second = _pair()[0], _pair()[0]
    write("ca.pem", first)
    digest = trust('ca_file = "ca.pem"').digest
    assert digest == trust('ca_file = "ca.pem"').digest
    write("ca.pem", second)
    assert digest != trust('ca_file = "ca.pem"').digest


def test_the_systems_trust_store_has_no_digest(trust: Callable[[str], Trust]) -> None:
    assert trust("") == Trust()


def test_verification_can_be_off(trust: Callable[[str], Trust]) -> None:
    assert trust("verify_tls = false") == Trust(verify=False)


def _problem(trust: Callable[[str], Trust], keys: str) -> str:
    with pytest.raises(ConfigError) as refusal:
        trust(keys)
    return str(refusal.value).replace(f"{Path.cwd()}/", "")


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "ca.pem holds no PEM certificate"),
        (b"\x30\x82", "ca.pem holds no PEM certificate"),
        (NONSENSE, "ca.pem holds a PEM certificate that cannot be parsed"),
    ],
)  # fmt: skip
def test_file_without_a_certificate_is_refused(
    content: bytes, wrong: str, trust: Callable[[str], Trust], write: Write
) -> None:
    write("ca.pem", content)
    assert f"agent.toml:3: gateways.corp.ca_file: {wrong}" == _problem(trust, 'ca_file = "ca.pem"')


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_refused_without_asking_for_a_password(
    form: PrivateFormat, trust: Callable[[str], Trust], write: Write
) -> None:
    certificate, key = _pair(b"hunter2", form)
    write("cert.pem", certificate)
    write("key.pem", key)
    assert "client_key_file: key.pem is encrypted" in _problem(trust, PAIR)


def test_the_key_of_another_certificate_is_refused(trust: Callable[[str], Trust], write: Write) -> None:
    write("cert.pem", _pair()[0])
    write("key.pem", _pair()[1])
    assert "client_key_file: key.pem is not the key of the certificate cert.pem" in _problem(trust, PAIR)


def test_a_broken_key_is_refused(trust: Callable[[str], Trust], write: Write) -> None:
    write("cert.pem", _pair()[0])
    write("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    assert "client_key_file: key.pem holds a key that cannot be parsed" in _problem(trust, PAIR)


def test_a_certificate_that_is_being_replaced_is_not_called_a_broken_key(
    trust: Callable[[str], Trust], write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = _pair()
    write("cert.pem", certificate)
    write("key.pem", key)

    def no_defect(*_: object) -> str:
        """The last thing that is asked before the pair is loaded."""
        write("cert.pem", certificate[: len(certificate) // 2])
        return ""

    monkeypatch.setattr("pomagent.config.trust._key_defect", no_defect)
    assert "client_cert_file: cert.pem holds a PEM certificate that cannot be parsed" in _problem(trust, PAIR)


def test_a_certificate_without_any_key_is_refused(trust: Callable[[str], Trust], write: Write) -> None:
    write("cert.pem", _pair()[0])
    expected = "client_cert_file: cert.pem holds no PEM private key; name the key's file: client_key_file"
    assert expected in _problem(trust, 'client_cert_file = "cert.pem"')


def test_a_certificate_in_place_of_a_key_is_refused(trust: Callable[[str], Trust], write: Write) -> None:
    write("cert.pem", _pair()[0])
    write("key.pem", _pair()[0])
    assert "client_key_file: key.pem holds no PEM private key" in _problem(trust, PAIR)


@pytest.mark.parametrize(("mode", "is_warned_of"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_private_key_that_everybody_can_read_is_warned_of(
    mode: int, is_warned_of: bool, load_text: Load, write: Write
) -> None:
    certificate, key = _pair()
    write("cert.pem", certificate, 0o644)
    write("key.pem", key, mode)
    route = '[[routes]]\nfrom = "a:1"\nlisten = "127.0.0.1:1"\n'
    warnings = load_text(f'[gateways.corp]\nurl = "https://edge.example.com"\n{PAIR}\n{route}').warnings
    expected = f"{Path.cwd()}/key.pem holds a private key and can be read by every user"
    assert warnings == ((f"agent.toml:4: gateways.corp.client_key_file: {expected}",) if is_warned_of else ())
