"""Resolves ``forward_proxy`` and ``forward_proxy_credentials_file`` to the proxy in front of a gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import SecretStr

from pomagent.config.inputs import Inputs
from pomagent.config.mistakes import Mistakes
from pomagent.config.model import GatewayTable
from pomagent.config.secrets import read_secret_file
from pomagent.config.tables import Entry
from pomagent.errors import CredentialError
from pomagent.protocol.proxy_env import PROXY_FORMS, ProxyUrl, goes_direct, parse_proxy_url, proxy_variable
from pomagent.protocol.route_url import AddressError
from pomagent.settings import ForwardProxy, Gateway

MAX_SOCKS_WORD_BYTES = 255
"""Maximum bytes of a user name and of a password, the lengths of which are one byte each (RFC 1929)."""


def with_forward_proxy(
    gateway: Gateway, entry: Entry[GatewayTable], environ: Mapping[str, str], mistakes: Mistakes, inputs: Inputs
) -> Gateway:
    """Return the gateway with its forward proxy, or without it, with the problems reported. Blocks."""
    given = check_forward_proxy(entry, mistakes, inputs)
    url = _from_environment(gateway, entry, environ, mistakes) if gateway.forward_proxy == "env" else _url(entry)
    if url is None:
        return gateway
    credentials = given or url.credentials
    if credentials and url.scheme.startswith("socks"):
        _check_for_socks(credentials, entry, mistakes)
    trust = replace(gateway.trust, client_cert_file=None, client_key_file=None, with_system=True)
    return replace(
        gateway,
        proxy=ForwardProxy(url.scheme, url.address, SecretStr(credentials) if credentials else None, trust),
    )


def check_forward_proxy(entry: Entry[GatewayTable], mistakes: Mistakes, inputs: Inputs) -> str:
    """Report problems of both keys and return the credentials in the file. Blocks."""
    proxy, place = entry.table.forward_proxy, entry.place
    if proxy and proxy != "env":
        try:
            parse_proxy_url(proxy)
        except AddressError as error:
            mistakes.problem(place, "forward_proxy", _explained(str(error), proxy))
    name = entry.table.forward_proxy_credentials_file
    return _credentials(entry, place.file(name), mistakes, inputs) if name else ""


def _explained(error: str, proxy: str) -> str:
    if "@" in proxy:
        return f"{error.partition(';')[0]}; a password belongs in forward_proxy_credentials_file"
    if error.startswith("expected"):
        return f'expected "env" or a URL: {PROXY_FORMS}'
    return error.partition(";")[0]


def _url(entry: Entry[GatewayTable]) -> ProxyUrl | None:
    try:
        return parse_proxy_url(entry.table.forward_proxy) if entry.table.forward_proxy else None
    except AddressError:
        return None  # check_forward_proxy has reported it


def _from_environment(
    gateway: Gateway, entry: Entry[GatewayTable], environ: Mapping[str, str], mistakes: Mistakes
) -> ProxyUrl | None:
    """Return the proxy that the environment sets, unless NO_PROXY names the gateway or the address it is dialed at."""
    name, value = proxy_variable(environ, tls=gateway.tls)
    if not value or goes_direct(environ, gateway.address) or goes_direct(environ, gateway.dial_address):
        return None
    try:
        return parse_proxy_url(value, default_scheme="http", may_have_credentials=True)
    except AddressError as error:
        mistakes.problem(entry.place, "forward_proxy", f"the environment variable {name} {_verb(str(error))}")
        return None


def _verb(error: str) -> str:
    return f"holds no proxy; {error}" if error.startswith("expected") else error.partition(";")[0]


def _credentials(entry: Entry[GatewayTable], file: Path, mistakes: Mistakes, inputs: Inputs) -> str:
    key = "forward_proxy_credentials_file"
    if not entry.table.forward_proxy:
        mistakes.problem(entry.place, key, "is set, but forward_proxy is not; expected both or neither")
    inputs.watch(file)
    try:
        content = read_secret_file(file)
    except CredentialError as error:
        mistakes.problem(entry.place, key, str(error), may_pass=True)
        return ""
    inputs.add(file, content.encode())
    if not content.partition(":")[0] or ":" not in content or not content.isprintable():
        mistakes.problem(entry.place, key, f'{file} does not hold one line "user:password"', may_pass=True)
        return ""
    return content


def _check_for_socks(credentials: str, entry: Entry[GatewayTable], mistakes: Mistakes) -> None:
    user, _, password = credentials.partition(":")
    if not all(0 < len(word.encode()) <= MAX_SOCKS_WORD_BYTES for word in (user, password)):
        file = "forward_proxy_credentials_file"
        mistakes.problem(
            entry.place, file if entry.table.forward_proxy_credentials_file else "forward_proxy",
            f"SOCKS takes a user and a password of 1 to {MAX_SOCKS_WORD_BYTES} bytes each",
            may_pass=bool(entry.table.forward_proxy_credentials_file),
        )  # fmt: skip
