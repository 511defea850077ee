"""Finds the forward proxy that the environment names for a gateway, by the rules that curl and Go document.

Where those two differ: a lower-case name wins over its upper-case twin (curl), ``NO_PROXY`` may name ports, and a
leading dot excludes the domain itself (Go). Loopback addresses never use a proxy (Go).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import get_args
from urllib.parse import unquote

from pomagent.protocol.route_url import AddressError, parse_host_port
from pomagent.settings import HostPort, ProxyScheme

PROXY_PORTS: Mapping[ProxyScheme, int] = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
PROXY_FORMS = ", ".join(f"{scheme}://HOST:PORT" for scheme in PROXY_PORTS)

_HTTPS = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_HTTP = ("http_proxy", "all_proxy", "ALL_PROXY")
"""HTTP_PROXY is ignored: in a CGI environment a client sets it by the header "Proxy"."""
_SEPARATORS = re.compile(r"[,\s]+")

_Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class ProxyUrl:
    """The parts of a forward proxy's URL."""

    scheme: ProxyScheme
    address: HostPort
    credentials: str = ""
    """``user:password``, without percent escapes. Empty without a user."""

    def __repr__(self) -> str:
        return f"ProxyUrl({self.scheme}://{self.address})"


def parse_proxy_url(text: str, *, default_scheme: str = "", may_have_credentials: bool = False) -> ProxyUrl:
    """Return the parts of a proxy's URL. Raises AddressError, which never quotes the URL."""
    named, has_scheme, rest = text.partition("://")
    given = named.lower() if has_scheme else default_scheme
    scheme = next((known for known in get_args(ProxyScheme) if known == given), None)
    if scheme is None:
        raise AddressError(f"expected a URL: {PROXY_FORMS}")
    rest = (rest if has_scheme else text).removesuffix("/")
    credentials = ""
    if may_have_credentials and "@" in rest:
        userinfo, _, rest = rest.rpartition("@")
        user, _, password = userinfo.partition(":")
        credentials = f"{unquote(user)}:{unquote(password)}"
    return ProxyUrl(scheme, parse_host_port(rest, default_port=PROXY_PORTS[scheme]), credentials)


def proxy_variable(environ: Mapping[str, str], *, tls: bool) -> tuple[str, str]:
    """Return the variable that names the proxy for gateways with or without TLS, and its value. Both may be empty."""
    for name in _HTTPS if tls else _HTTP:
        if value := environ.get(name, "").strip():
            return name, value
    return "", ""


def goes_direct(environ: Mapping[str, str], target: HostPort) -> bool:
    """Return whether a target bypasses the proxy: on loopback, or named by ``NO_PROXY``."""
    excluded = environ.get("no_proxy", "").strip() or environ.get("NO_PROXY", "")
    return _is_loopback(target.host) or is_excluded(excluded, target)


def is_excluded(no_proxy: str, target: HostPort) -> bool:
    """Return whether a name, address or network in the value of ``NO_PROXY`` covers the target."""
    entries = _SEPARATORS.split(no_proxy.strip().lower())
    return any(entry == "*" or _matches(entry, target) for entry in entries if entry)


def _matches(entry: str, target: HostPort) -> bool:
    address = _address(target.host)
    if "/" in entry:
        return address is not None and _is_in_network(address, entry)
    host, port = _split(entry)
    if port and port != str(target.port):
        return False
    named = _address(host)
    if named is not None or address is not None:
        return named == address
    host = host.removeprefix("*").removesuffix(".")
    return target.host.endswith(host) if host.startswith(".") else f".{target.host}".endswith(f".{host}")


def _split(entry: str) -> tuple[str, str]:
    """Return host and port of an entry. An IPv6 address needs brackets to have a port."""
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
    return host, port


def _is_in_network(address: _Address, entry: str) -> bool:
    try:
        return address in ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> _Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
