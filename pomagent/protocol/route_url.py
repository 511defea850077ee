"""Parses a route's ``from``, a gateway's URL, and ``host:port`` (wire contract §1.3).

A message never quotes the text that it is about: an operator may have pasted a password or a token into it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import unquote

import idna

from pomagent.settings import HostPort

HTTPS_PORT = 443
HTTP_PORT = 80
MAX_HOST_LENGTH = 253  # RFC 1035 §2.3.4, without the final dot

ROUTE_FORMS = "expected tcp+https://HOST:PORT, tcp+https://EDGE/HOST:PORT or HOST:PORT"
EDGE_FORMS = "expected https://HOST or https://HOST:PORT"
CLEAR_TEXT = (
    "would send the token in clear text; expected tcp+https://, or a gateway that the route names and that has "
    "insecure_http = true"
)

# Host names have no underscores, but service names do, and Envoy matches them.
_LABELS = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
_BLANK_OR_CONTROL = re.compile(r"[\s\x00-\x20\x7f-\x9f]")


class AddressError(ValueError):
    """An invalid address, with the expected form."""


@dataclass(frozen=True, slots=True)
class EdgeUrl:
    """The address of a gateway."""

    address: HostPort
    tls: bool = True


@dataclass(frozen=True, slots=True)
class RouteUrl:
    """The parts of a route's ``from``: the CONNECT's target, and the edge to send it to."""

    destination: HostPort
    edge: EdgeUrl


def parse_route_url(text: str, *, clear_text: bool = False) -> RouteUrl:
    """Return the parts of a route's ``from``. ``clear_text`` allows the ``http`` schemes. Raises AddressError."""
    _reject_foreign_parts(text)
    scheme, has_scheme, rest = text.partition("://")
    if not has_scheme:
        return _own_edge(text, tls=True)
    tls = _route_scheme_is_tls(scheme.lower(), clear_text=clear_text)
    authority, has_path, path = rest.partition("/")
    if has_path:
        return RouteUrl(_bastion_destination(path), EdgeUrl(_edge_address(authority, tls=tls), tls))
    if not scheme.lower().startswith("tcp+"):
        raise AddressError("names no destination; expected https://EDGE/HOST:PORT, or tcp+https://HOST:PORT")
    return _own_edge(authority, tls=tls)


def parse_edge_url(text: str, *, ignore_path: bool = False) -> EdgeUrl:
    """Return the address in a gateway's URL.

    ``ignore_path`` drops path and query as pomerium-cli does. Raises AddressError.
    """
    scheme, has_scheme, rest = text.partition("://")
    authority, _, path = rest.partition("/")
    if ignore_path:
        path, authority = "", re.split(r"[?#]", authority)[0]
    _reject_foreign_parts(f"{scheme}://{authority}/{path}" if text else "")
    if not has_scheme:
        raise AddressError(f"has no scheme; {EDGE_FORMS}")
    if scheme.lower() not in {"https", "http"}:
        raise AddressError(f"is not a gateway's URL: unknown scheme; {EDGE_FORMS}")
    if path:
        raise AddressError(f"has a path; {EDGE_FORMS}")
    tls = scheme.lower() == "https"
    return EdgeUrl(_edge_address(authority, tls=tls), tls)


def parse_host_port(text: str, *, default_port: int | None = None, lowest_port: int = 1) -> HostPort:
    """Return the parts of ``host:port``, ``address:port`` or ``[IPv6]:port``. Raises AddressError."""
    _reject_foreign_parts(text)
    host, port = _split_port(text)
    if port is None and default_port is None:
        raise AddressError("has no port; expected HOST:PORT")
    number = default_port if port is None else _port_number(port, lowest_port)
    return HostPort(_normal_host(host), number or 0)


def is_ip(host: str) -> bool:
    """Return whether the host of a HostPort is an address. No name ends with a number."""
    return ":" in host or host[host.rfind(".") + 1 :].isdigit()


def _reject_foreign_parts(text: str) -> None:
    if not text:
        raise AddressError("is empty")
    if "@" in text or "%40" in text:
        raise AddressError("holds a user name or a password; a token's source belongs in [credentials.*]")
    if _BLANK_OR_CONTROL.search(text):
        raise AddressError("holds a blank or a control character")
    if "?" in text or "#" in text:
        raise AddressError("has a query or a fragment; expected neither")


def _route_scheme_is_tls(scheme: str, *, clear_text: bool) -> bool:
    if scheme.startswith("udp"):
        raise AddressError("is a UDP route, which pomagent does not carry yet; only tcp+https:// is supported")
    if scheme in {"tcp+https", "https"}:
        return True
    if scheme in {"tcp+http", "http"}:
        if not clear_text:
            raise AddressError(CLEAR_TEXT)
        return False
    if scheme == "tcp":
        raise AddressError(f"has the scheme tcp, which does not determine TLS; {ROUTE_FORMS}")
    raise AddressError(f"has an unknown scheme; {ROUTE_FORMS}")


def _own_edge(authority: str, *, tls: bool) -> RouteUrl:
    if "/" in authority:
        raise AddressError(f"has a path but no scheme; {ROUTE_FORMS}")
    destination = parse_host_port(authority)
    return RouteUrl(destination, EdgeUrl(HostPort(destination.host, HTTPS_PORT if tls else HTTP_PORT), tls))


def _edge_address(authority: str, *, tls: bool) -> HostPort:
    if not authority:
        raise AddressError("names no host")
    return parse_host_port(authority, default_port=HTTPS_PORT if tls else HTTP_PORT)


def _bastion_destination(path: str) -> HostPort:
    if not path:
        raise AddressError("ends with a slash and so names no destination; expected no slash, or HOST:PORT behind it")
    if "/" in path:
        raise AddressError("has more than one path segment; expected one destination, and one route for each")
    try:
        return parse_host_port(unquote(path, errors="strict"))
    except UnicodeDecodeError:
        raise AddressError("has percent escapes that are not UTF-8") from None


def _split_port(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise AddressError("has a broken [IPv6] address; expected [ADDRESS]:PORT")
        return str(_ipv6(host)), rest[1:] if rest else None
    host, colon, port = text.rpartition(":")
    if ":" in host:
        raise AddressError("has more than one colon; expected an IPv6 address in brackets: [ADDRESS]:PORT")
    return (host, port) if colon else (text, None)


def _ipv6(text: str) -> IPv6Address:
    try:
        address = IPv6Address(text)
    except ValueError:
        raise AddressError("has something else than an IPv6 address in the brackets") from None
    if address.scope_id:
        raise AddressError("has an IPv6 zone, which is valid on one host only; expected none")
    return address


def _port_number(text: str, lowest: int) -> int:
    if not text:
        raise AddressError("has an empty port")
    if not (text.isascii() and text.isdigit()):
        raise AddressError("has a port that is not a number")
    digits = text.lstrip("0") or "0"
    if len(digits) > 5 or not lowest <= int(digits) <= 65535:
        raise AddressError(f"has a port out of range; expected {lowest} to 65535")
    return int(digits)


def _normal_host(host: str) -> str:
    if not host:
        raise AddressError("names no host")
    if ":" in host:  # _split_port has parsed it as an IPv6 address
        return host
    if not host.isascii():
        host = _to_ascii(host)
    host = host.lower()
    if "*" in host:
        raise AddressError("has a wildcard, which is the edge's; expected one host")
    if host.endswith("."):
        raise AddressError("has a host that ends with a dot, for which an edge finds no route; expected none")
    if len(host) > MAX_HOST_LENGTH or not _LABELS.fullmatch(host):
        raise AddressError("has an invalid host name")
    if is_ip(host) and not _IPV4.fullmatch(host):
        raise AddressError("has a host that looks like an IPv4 address and is none")
    return host


def _to_ascii(host: str) -> str:
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except UnicodeError:  # IDNAError is one
        raise AddressError("has an invalid international host name") from None
