"""Reads an export of Pomerium Desktop's connections: ``pomerium.cli.Records`` as JSON (protojson).

``pomerium/cli: proto/api.proto`` defines the messages, ``api/import_export.go`` the envelope. protojson writes fields
in camelCase, also reads their names in the .proto file, reads null as "not set", and an enum by name or number.
Certificates and keys do not leave this module, except for their presence and a digest to compare them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pomagent.config.messages import describe
from pomagent.errors import ConfigError, Problem

MAX_EXPORT_BYTES = 16 * 1024 * 1024
"""Maximum bytes of an export: 10,000 connections with a certificate each."""
RECORDS_TYPE = "pomerium.cli.Records"

_UDP = frozenset({"UDP", 2})
_TCP = frozenset({"TCP", 1, "UNKNOWN", 0, None})
_RECORD_FIELDS = frozenset({"id", "tags", "conn", "source"})
_CONNECTION_FIELDS = frozenset(
    {
        "name", "protocol", "remoteAddr", "listenAddr", "pomeriumUrl", "disableTlsVerification", "caCert",
        "clientCert", "clientCertFromStore", "tlsClientCert", "tlsClientKey", "autostart",
    }
)  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Blob:
    """A certificate or a key in the export."""

    where: str
    """Path in the file, for jq."""
    digest: str


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection of the export. Texts are unchanged."""

    index: int
    name: str = ""
    protocol: str = "TCP"
    """TCP, UDP, or a value of a later Desktop."""
    remote_addr: str = ""
    listen_addr: str = ""
    pomerium_url: str = ""
    verify_tls: bool = True
    ca_cert: Blob | None = None
    client_cert: Blob | None = None
    client_key: Blob | None = None
    is_cert_from_store: bool = False
    tags: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    """Fields that this version does not know."""


def read_export(content: bytes, path: Path) -> list[Connection]:
    """Return the connections of an export. Raises ConfigError with one problem if the content is none."""
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _refusal(path, "is not a Pomerium Desktop export: not UTF-8") from None
    except json.JSONDecodeError as error:
        message = f"is not a Pomerium Desktop export: not JSON: {error.msg[:1].lower()}{error.msg[1:]}"
        raise ConfigError([Problem(path, error.lineno, "", message, error.colno)]) from None
    except (ValueError, RecursionError):
        raise _refusal(path, "is not a Pomerium Desktop export: nested too deeply, or a number is too long") from None
    try:
        return list(_connections(document))
    except _ShapeError as error:
        raise ConfigError([Problem(path, 0, error.where, str(error))]) from None


class _ShapeError(ValueError):
    def __init__(self, where: str, value: object, expected: str) -> None:
        self.where = where
        given = "null" if value is None else describe(value)
        super().__init__(f"is {given}; expected {expected}: is this a Pomerium Desktop export?")


@dataclass(frozen=True, slots=True)
class _Message:
    """A JSON object with its fields by the names that protojson writes."""

    where: str
    fields: Mapping[str, Any]
    spelled: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str, kind: type[T], expected: str) -> T | None:
        value = self.fields.get(name)
        # In Python, unlike in protojson, a boolean is an int.
        if value is None or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
            return value
        raise _ShapeError(self.path(name), value, expected)

    def text(self, name: str) -> str:
        return (self.get(name, str, "a string") or "").strip()

    def message(self, name: str) -> _Message | None:
        found = self.get(name, dict, "an object")
        return None if found is None else _message(self.path(name), found)

    def blob(self, name: str) -> Blob | None:
        text = self.get(name, str, "base64")
        return Blob(f".{self.path(name)}", hashlib.sha256(text.encode(errors="replace")).hexdigest()) if text else None

    def path(self, name: str) -> str:
        return f"{self.where}.{self.spelled.get(name, name)}".lstrip(".")

    def unknown(self, known: Collection[str]) -> list[str]:
        return [name for name in self.fields if name not in known]


def _message(where: str, given: Mapping[str, Any]) -> _Message:
    fields, spelled = {}, {}
    for spelling, value in given.items():
        name = re.sub(r"_([a-z])", lambda match: match[1].upper(), spelling)
        fields[name], spelled[name] = value, spelling
    return _Message(where, fields, spelled)


def _connections(document: object) -> Iterator[Connection]:
    if not isinstance(document, dict):
        raise _ShapeError("", document, "an object with records")
    export = _message("", document)
    kind = export.get("@type", str, "a string")
    if kind is not None and kind.rpartition("/")[2] != RECORDS_TYPE:
        raise _ShapeError("@type", kind, f'"…/{RECORDS_TYPE}"')
    if kind is None and "records" not in export.fields:
        raise _ShapeError("records", None, "an array")
    for index, record in enumerate(export.get("records", list, "an array") or []):
        where = f"records[{index}]"
        if not isinstance(record, dict):
            raise _ShapeError(where, record, "an object")
        yield _connection(index, _message(where, record))


def _connection(index: int, record: _Message) -> Connection:
    tags = record.get("tags", list, "an array of strings") or []
    if not all(isinstance(tag, str) for tag in tags):
        raise _ShapeError(record.path("tags"), tags, "an array of strings")
    unknown = record.unknown(_RECORD_FIELDS)
    conn = record.message("conn")
    if conn is None:
        return Connection(index, tags=tuple(tags), unknown=tuple(unknown))
    certificate, key = conn.blob("tlsClientCert"), conn.blob("tlsClientKey")  # fields of the first versions
    if pair := conn.message("clientCert"):
        certificate, key = pair.blob("cert"), pair.blob("key")
    return Connection(
        index=index,
        name=conn.text("name"),
        protocol=_protocol(conn),
        remote_addr=conn.text("remoteAddr"),
        listen_addr=conn.text("listenAddr"),
        pomerium_url=conn.text("pomeriumUrl"),
        verify_tls=not conn.get("disableTlsVerification", bool, "true or false"),
        ca_cert=conn.blob("caCert"),
        client_cert=certificate,
        client_key=key,
        is_cert_from_store=conn.message("clientCertFromStore") is not None,
        tags=tuple(tags),
        unknown=(*unknown, *conn.unknown(_CONNECTION_FIELDS)),
    )


def _protocol(conn: _Message) -> str:
    value = conn.fields.get("protocol")
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise _ShapeError(conn.path("protocol"), value, "TCP or UDP")
    if value in _TCP:
        return "TCP"
    return "UDP" if value in _UDP else str(value)


def _refusal(path: Path, message: str) -> ConfigError:
    return ConfigError([Problem(path, 0, "", message)])
