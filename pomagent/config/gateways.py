"""Resolves ``[gateways.*]`` and ``[credentials.*]`` to gateways and credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pomagent.config.forward_proxy import check_forward_proxy, with_forward_proxy
from pomagent.config.inputs import Inputs
from pomagent.config.mistakes import Mistakes
from pomagent.config.model import CredentialTable, GatewayTable
from pomagent.config.secrets import looks_like_token, read_token
from pomagent.config.tables import Entry
from pomagent.config.trust import read_trust
from pomagent.errors import CredentialError
from pomagent.protocol.route_url import AddressError, EdgeUrl, parse_edge_url, parse_host_port
from pomagent.settings import Credential, Gateway, HostPort, Source

SOURCES: tuple[Source, ...] = ("service_account_file", "systemd_credential", "env", "command", "login")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def resolve_gateway(
    name: str, entry: Entry[GatewayTable], environ: Mapping[str, str], mistakes: Mistakes, inputs: Inputs
) -> Gateway | None:
    """Return one gateway with the content of its files, or None, with its problems reported. Blocks."""
    table = entry.table
    url = _url(entry, mistakes)
    _check_combinations(entry, url, mistakes)
    connect_to = _connect_to(entry, mistakes)
    trust = read_trust(entry, mistakes, inputs)
    if not url:
        check_forward_proxy(entry, mistakes, inputs)
        return None
    gateway = Gateway(
        name=name,
        address=url.address,
        tls=url.tls,
        connect_to=connect_to,
        credential_header=table.credential_header,
        trust=trust,
        forward_proxy=table.forward_proxy,
        forward_proxy_credentials_file=_optional_file(entry, table.forward_proxy_credentials_file),
        transport=table.transport,
        connect_timeout_s=table.connect_timeout_s,
        tls_timeout_s=table.tls_timeout_s,
        response_timeout_s=table.response_timeout_s,
        max_dials=table.max_dials,
    )
    gateway = with_forward_proxy(gateway, entry, environ, mistakes, inputs)
    return replace(gateway, problem=mistakes.passing(entry.place))


def resolve_credential(
    name: str, entry: Entry[CredentialTable], environ: Mapping[str, str], mistakes: Mistakes, inputs: Inputs
) -> Credential | None:
    """Return one credential with its token, and report its problems. Blocks.

    None is returned for one without a usable source. A token that cannot be read is None: it is read when it is needed.
    """
    table, place = entry.table, entry.place
    given = [source for source in SOURCES if source in entry.given]
    if len(given) != 1:
        message = f"has the sources {_listed(given)}" if given else "has no source"
        mistakes.problem(place, "", f"{message}; expected exactly one of {', '.join(SOURCES)}")
        return None
    source = given[0]
    if not entry.has(source):
        return None
    if source == "login" and table.scheme == "bearer":
        mistakes.problem(place, "scheme", 'is "bearer", but login = "browser" obtains a token of the scheme "pomerium"')
    credential = Credential(
        name=name,
        source=source,
        variable=table.env or "",
        command=tuple(table.command or ()),
        command_timeout_s=table.command_timeout_s,
        recheck_s=table.recheck_s,
        scheme=table.scheme,
    )
    try:
        credential = replace(credential, path=_token_file(entry, environ))
        if source in {"command", "login"}:
            return credential
        return _with_token(credential, environ, inputs)
    except CredentialError as error:
        # Another content of the file heals it without an edit. A variable never changes while the agent runs.
        mistakes.problem(place, source, str(error), may_pass=credential.path is not None)
        return credential


def _with_token(credential: Credential, environ: Mapping[str, str], inputs: Inputs) -> Credential:
    if credential.path:
        inputs.watch(credential.path)
    elif not _VARIABLE.fullmatch(credential.variable):
        raise CredentialError("is not the name of an environment variable")
    elif looks_like_token(credential.variable) and credential.variable not in environ:
        raise CredentialError("looks like a token; expected the name of an environment variable that holds it")
    token = read_token(credential, environ)
    inputs.add(credential.path or Path(credential.variable), token.get_secret_value().encode())
    return replace(credential, token=token)


def _token_file(entry: Entry[CredentialTable], environ: Mapping[str, str]) -> Path | None:
    table = entry.table
    if table.systemd_credential:
        directory = environ.get("CREDENTIALS_DIRECTORY")
        if looks_like_token(table.systemd_credential) or "/" in table.systemd_credential:
            raise CredentialError("is not the name of a credential that systemd loads")
        if not directory:
            raise CredentialError("needs $CREDENTIALS_DIRECTORY, which systemd sets for a unit with LoadCredential=")
        return Path(directory, table.systemd_credential)
    if table.service_account_file:
        path = entry.place.file(table.service_account_file)
        if looks_like_token(table.service_account_file) and not path.is_file():
            raise CredentialError("looks like a token; expected the path of a file that holds it")
        return path
    return None


def _url(entry: Entry[GatewayTable], mistakes: Mistakes) -> EdgeUrl | None:
    if not entry.has("url"):
        return None
    try:
        return parse_edge_url(entry.table.url)
    except AddressError as error:
        mistakes.problem(entry.place, "url", str(error))
        return None


def _connect_to(entry: Entry[GatewayTable], mistakes: Mistakes) -> HostPort | None:
    try:
        return parse_host_port(entry.table.connect_to) if entry.table.connect_to else None
    except AddressError as error:
        mistakes.problem(entry.place, "connect_to", str(error))
        return None


def _check_combinations(entry: Entry[GatewayTable], url: EdgeUrl | None, mistakes: Mistakes) -> None:
    table, place = entry.table, entry.place
    if table.client_key_file and not table.client_cert_file:
        mistakes.problem(place, "client_key_file", "is set, but client_cert_file is not; expected both or neither")
    if table.ca_file and not table.verify_tls:
        mistakes.problem(
            place, "ca_file", "is set, but verify_tls = false trusts every certificate; expected one of them"
        )
    if not table.verify_tls:
        mistakes.warning(place, "verify_tls", "is false: any host on the path to the gateway can take the token")
    if table.insecure_http:
        mistakes.warning(place, "insecure_http", "is true: the token travels in clear text")
    if url and not url.tls:
        _check_clear_text(entry, mistakes)


def _check_clear_text(entry: Entry[GatewayTable], mistakes: Mistakes) -> None:
    table, place = entry.table, entry.place
    if not table.insecure_http and entry.has("insecure_http"):
        message = "is http, which sends the token in clear text; expected https://, or insecure_http = true beside it"
        mistakes.problem(place, "url", message)
    if table.transport == "http2":
        mistakes.problem(place, "transport", 'is "http2", which needs TLS, but the url is http')
    for key in ("ca_file", "client_cert_file", "client_key_file"):
        if getattr(table, key):
            mistakes.problem(place, key, "is set, but the url is http, which has no certificates")


def _optional_file(entry: Entry[GatewayTable], name: str) -> Path | None:
    return entry.place.file(name) if name else None


def _listed(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
