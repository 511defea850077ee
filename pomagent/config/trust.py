"""Reads and checks the certificates and keys of a gateway."""

from __future__ import annotations

import hashlib
import ssl
import stat
from pathlib import Path

from pomagent.config.inputs import Inputs
from pomagent.config.mistakes import Mistakes
from pomagent.config.model import GatewayTable
from pomagent.config.tables import Entry
from pomagent.runtime.files import FileError
from pomagent.settings import Trust

MAX_PEM_BYTES = 4 * 1024 * 1024
"""Maximum bytes of a PEM file. The system's bundle of all CAs has 0.2 MB."""

_FILES = ("ca_file", "client_cert_file", "client_key_file")
_ENCRYPTED = (b"ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")


def read_trust(entry: Entry[GatewayTable], mistakes: Mistakes, inputs: Inputs) -> Trust:
    """Return the trust of a gateway with a digest of its files, and report unusable files. Blocks."""
    paths = {key: entry.place.file(name) for key in _FILES if (name := getattr(entry.table, key))}
    contents = {key: _read(entry, key, path, mistakes, inputs) for key, path in paths.items()}
    if None not in contents.values():
        _check_pair(entry, paths, contents, mistakes)
    return Trust(
        verify=entry.table.verify_tls,
        ca_file=paths.get("ca_file"),
        client_cert_file=paths.get("client_cert_file"),
        client_key_file=paths.get("client_key_file"),
        digest=_digest(contents),
    )


def _read(entry: Entry[GatewayTable], key: str, path: Path, mistakes: Mistakes, inputs: Inputs) -> bytes | None:
    """Return the content of a file, or None, with its problem reported, if it is unusable."""
    try:
        file = inputs.read(path, limit=MAX_PEM_BYTES)
    except FileError as error:
        mistakes.problem(entry.place, key, str(error), may_pass=True)
        return None
    if defect := _defect(key, path, file.content):
        mistakes.problem(entry.place, key, defect, may_pass=True)
        return None
    if b"PRIVATE KEY-----" in file.content and file.mode & stat.S_IROTH:
        mistakes.warning(entry.place, key, f"{path} holds a private key and can be read by every user")
    return file.content


def _defect(key: str, path: Path, content: bytes) -> str:
    if key == "client_key_file":
        return _key_defect(path, content)
    if b"-----BEGIN CERTIFICATE-----" not in content and b"-----BEGIN TRUSTED CERTIFICATE-----" not in content:
        return f"{path} holds no PEM certificate"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError):
        return f"{path} holds a PEM certificate that cannot be parsed"
    return ""


def _key_defect(path: Path, content: bytes) -> str:
    if any(mark in content for mark in _ENCRYPTED):
        return f"{path} is encrypted; expected a key without a password, which a service cannot ask for"
    return "" if b"PRIVATE KEY-----" in content else f"{path} holds no PEM private key"


def _check_pair(
    entry: Entry[GatewayTable], paths: dict[str, Path], contents: dict[str, bytes | None], mistakes: Mistakes
) -> None:
    certificate = paths.get("client_cert_file")
    if not certificate:
        return
    key_holder = "client_key_file" if "client_key_file" in paths else "client_cert_file"
    key = paths[key_holder]
    if defect := _key_defect(key, contents[key_holder] or b""):
        hint = "; name the key's file: client_key_file" if key == certificate else ""
        mistakes.problem(entry.place, key_holder, defect + hint, may_pass=True)
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError) as error:
        if defect := _defect("client_cert_file", certificate, contents["client_cert_file"] or b""):
            # The file is being replaced: it was valid when it was read.
            mistakes.problem(entry.place, "client_cert_file", defect, may_pass=True)
            return
        mismatch = getattr(error, "reason", "") == "KEY_VALUES_MISMATCH"
        what = f"is not the key of the certificate {certificate}" if mismatch else "holds a key that cannot be parsed"
        mistakes.problem(entry.place, key_holder, f"{key} {what}", may_pass=True)


def _digest(contents: dict[str, bytes | None]) -> str:
    if not contents:
        return ""
    digest = hashlib.sha256()
    for key, content in contents.items():
        digest.update(b"%s\0%d\0" % (key.encode(), len(content or b"")))
        digest.update(content or b"")
    return digest.hexdigest()
