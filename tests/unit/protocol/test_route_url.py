"""Every row of the wire contract's §1.3, and what must not get through."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pomagent.protocol.route_url import (
    AddressError,
    EdgeUrl,
    RouteUrl,
    is_ip,
    parse_edge_url,
    parse_host_port,
    parse_route_url,
)
from pomagent.settings import HostPort

REDIS = HostPort("redis.example.com", 6379)
INTERNAL = HostPort("redis.int", 6379)


def _https(host: str, port: int = 443) -> EdgeUrl:
    return EdgeUrl(HostPort(host, port))


@pytest.mark.parametrize(
    ("text", "destination", "edge"),
    [
        ("redis.example.com:6379", REDIS, _https("redis.example.com")),
        ("tcp+https://redis.example.com:6379", REDIS, _https("redis.example.com")),
        ("tcp+https://proxy.example.com/redis.int:6379", INTERNAL, _https("proxy.example.com")),
        ("tcp+https://proxy.example.com:8443/redis.int:6379", INTERNAL, _https("proxy.example.com", 8443)),
        ("https://proxy.example.com/redis.int:6379", INTERNAL, _https("proxy.example.com")),
        ("https://proxy.example.com:8443/redis.int:6379", INTERNAL, _https("proxy.example.com", 8443)),
        ("TCP+HTTPS://Redis.Example.Com:6379", REDIS, _https("redis.example.com")),
        ("[2001:db8::5]:22", HostPort("2001:db8::5", 22), _https("2001:db8::5")),
        ("tcp+https://[2001:DB8:0::5]:22", HostPort("2001:db8::5", 22), _https("2001:db8::5")),
        ("tcp+https://[2001:db8::1]/db.int:5432", HostPort("db.int", 5432), _https("2001:db8::1")),
        ("tcp+https://[2001:db8::1]:8443/db.int:5432", HostPort("db.int", 5432), _https("2001:db8::1", 8443)),
        ("tcp+https://px.example.com/%5B2001:db8::5%5D:22", HostPort("2001:db8::5", 22), _https("px.example.com")),
        ("bücher.example:5432", HostPort("xn--bcher-kva.example", 5432), _https("xn--bcher-kva.example")),
        ("https://px.int/B%C3%BCcher.example:1", HostPort("xn--bcher-kva.example", 1), _https("px.int")),
        ("10.0.0.7:22", HostPort("10.0.0.7", 22), _https("10.0.0.7")),
        ("my_service.int:22", HostPort("my_service.int", 22), _https("my_service.int")),
        ("a:1", HostPort("a", 1), _https("a")),
        ("a:65535", HostPort("a", 65535), _https("a")),
    ],
)  # fmt: skip
def test_a_form_of_from_names_a_destination_and_an_edge(text: str, destination: HostPort, edge: EdgeUrl) -> None:
    assert parse_route_url(text) == RouteUrl(destination, edge)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "is empty"),
        ("redis.example.com", "has no port"),
        ("tcp+https://redis.example.com", "has no port"),
        ("tcp+https://redis.example.com:6379/", "ends with a slash"),
        ("tcp://redis.example.com:6379", "does not determine TLS"),
        ("redis.example.com:", "empty port"),
        (":22", "names no host"),
        ("tcp+https://:22", "names no host"),
        ("tcp+https:///db.int:22", "names no host"),
        (" redis.example.com:6379", "blank"),
        ("redis.example.com:6379\n", "blank"),
        ("redis\u00a0x.example.com:6379", "blank"),
        ("tcp+https://px.example.com/redis.int%20:6379", "blank"),
        ("tcp+https://px.example.com/redis.int:6379/extra:1", "more than one path segment"),
        ("redis.example.com:6379/", "has a path but no scheme"),
        ("px.example.com/redis.int:6379", "has a path but no scheme"),
        ("https://redis.example.com:6379", "names no destination"),
        ("tcp+https://px.example.com/redis.int", "has no port"),
        ("tcp+https://px.example.com/redis.int:0", "out of range"),
        ("redis.example.com:0", "out of range"),
        ("redis.example.com:65536", "out of range"),
        ("redis.example.com:" + "9" * 5000, "out of range"),
        ("redis.example.com:six", "not a number"),
        ("redis.example.com:+1", "not a number"),
        ("redis.example.com:٣", "not a number"),
        ("tcp+https://px.example.com:0/redis.int:1", "out of range"),
        ("tcp+https://me:hunter2@redis.example.com:6379", "user name or a password"),
        ("tcp+https://px.example.com/me@redis.int:6379", "user name or a password"),
        ("tcp+https://px.example.com/me%40redis.int:6379", "user name or a password"),
        ("tcp+https://redis.example.com:6379?pomerium_session=x", "query or a fragment"),
        ("tcp+https://redis.example.com:6379#x", "query or a fragment"),
        ("tcp+https://px.example.com/redis.int%3Fa:6379", "query or a fragment"),
        ("udp+https://dns.example.com:53", "UDP route"),
        ("UDP+HTTPS://px.example.com/dns.int:53", "UDP route"),
        ("ssh://redis.example.com:22", "unknown scheme"),
        ("2001:db8::5:22", "more than one colon"),
        ("[2001:db8::5:22", r"broken \[IPv6\]"),
        ("[2001:db8::5]22", r"broken \[IPv6\]"),
        ("[2001:db8::5]", "has no port"),
        ("[redis]:22", "something else than an IPv6 address"),
        ("[fe80::1%eth0]:22", "IPv6 zone"),
        ("256.0.0.1:22", "looks like an IPv4 address"),
        ("10.0.0.07:22", "looks like an IPv4 address"),
        ("1:22", "looks like an IPv4 address"),
        ("*.db.example.com:5432", "wildcard"),
        ("redis.example.com.:6379", "ends with a dot"),
        ("redis..com:6379", "invalid host name"),
        ("-redis.com:6379", "invalid host name"),
        ("a" * 64 + ".com:6379", "invalid host name"),
        (".".join(["a" * 49] * 6) + ":1", "invalid host name"),
        ("tcp+https://px.example.com/%FF:22", "not UTF-8"),
        ("\u2603\u200d.example:1", "invalid international host name"),
        ("tcp+https://tcp+https://a:1", "path segment"),
    ],
)
def test_malformed_route_is_rejected_with_its_fault(text: str, wrong: str) -> None:
    with pytest.raises(AddressError, match=wrong):
        parse_route_url(text)


@pytest.mark.parametrize("text", ["tcp+http://redis.example.com:6379", "http://px.example.com/redis.int:6379"])
def test_clear_text_is_refused_unless_it_is_allowed(text: str) -> None:
    with pytest.raises(AddressError, match="clear text"):
        parse_route_url(text)
    assert not parse_route_url(text, clear_text=True).edge.tls


def test_a_clear_text_edge_listens_on_port_80() -> None:
    assert parse_route_url("tcp+http://a.example.com:6379", clear_text=True).edge.address == HostPort(
        "a.example.com", 80
    )


@pytest.mark.parametrize(
    ("text", "edge"),
    [
        ("https://px.example.com", _https("px.example.com")),
        ("https://px.example.com/", _https("px.example.com")),
        ("HTTPS://PX.example.com:8443", _https("px.example.com", 8443)),
        ("https://[2001:db8::1]", _https("2001:db8::1")),
        ("http://px.example.com", EdgeUrl(HostPort("px.example.com", 80), tls=False)),
    ],
)
def test_a_gateways_url_has_scheme_host_and_perhaps_a_port(text: str, edge: EdgeUrl) -> None:
    assert parse_edge_url(text) == edge


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "is empty"),
        ("px.example.com", "has no scheme"),
        ("px.example.com:8443", "has no scheme"),
        ("tcp+https://px.example.com", "unknown scheme"),
        ("https://", "names no host"),
        ("https://px.example.com/x", "has a path"),
        ("https://px.example.com?x", "query"),
        ("https://me:hunter2@px.example.com", "user name or a password"),
    ],
)
def test_malformed_gateway_url_is_rejected(text: str, wrong: str) -> None:
    with pytest.raises(AddressError, match=wrong):
        parse_edge_url(text)


@pytest.mark.parametrize("tail", ["", "/", "/x?y", "?y", "#z", "/a@b"])
def test_path_and_query_of_a_gateways_url_are_dropped_where_pomerium_cli_drops_them(tail: str) -> None:
    assert parse_edge_url("https://px.example.com:8443" + tail, ignore_path=True) == _https("px.example.com", 8443)


def test_userinfo_is_refused_even_where_the_path_is_dropped() -> None:
    with pytest.raises(AddressError, match="user name"):
        parse_edge_url("https://me:hunter2@px.example.com/x", ignore_path=True)


def test_port_0_is_accepted_only_with_a_lowest_port_of_0() -> None:
    assert parse_host_port("127.0.0.1:0", lowest_port=0) == HostPort("127.0.0.1", 0)
    with pytest.raises(AddressError, match="expected 1 to 65535"):
        parse_host_port("127.0.0.1:0")


@pytest.mark.parametrize(
    ("host", "expected"), [("::1", True), ("10.0.0.1", True), ("a.1b", False), ("localhost", False)]
)
def test_addresses_differ_from_names(host: str, expected: bool) -> None:
    assert is_ip(host) is expected


labels = st.text(string.ascii_letters + string.digits, min_size=1, max_size=20).filter(lambda s: not s.isdigit())
hosts = st.lists(labels, min_size=1, max_size=4).map(".".join) | st.ip_addresses().filter(
    lambda ip: not getattr(ip, "scope_id", None)
).map(str)
ports = st.integers(1, 65535)


@given(hosts, ports)
def test_printed_destination_parses_to_itself(host: str, port: int) -> None:
    destination = HostPort(host.lower(), port)
    assert parse_host_port(str(destination)) == destination
    assert parse_route_url(f"tcp+https://{destination}").destination == destination


@given(hosts, ports, hosts, ports)
def test_the_bastion_form_keeps_edge_and_destination_apart(edge: str, edge_port: int, host: str, port: int) -> None:
    expected = RouteUrl(HostPort(host.lower(), port), EdgeUrl(HostPort(edge.lower(), edge_port)))
    assert parse_route_url(f"tcp+https://{expected.edge.address}/{expected.destination}") == expected


@given(st.text() | st.text(alphabet="tcp+https://[]:.@%0123456789abc"))
def test_any_text_is_parsed_or_rejected(text: str) -> None:
    try:
        url = parse_route_url(text, clear_text=True)
    except AddressError:
        return
    assert parse_route_url(f"tcp+https://{url.edge.address}/{url.destination}").destination == url.destination


@given(
    st.sampled_from(
        ["{}", "tcp+https://u:{}@h:1", "{}://h:1", "tcp+https://h/{}", "tcp+https://h:1?{}", "h:{}", "[{}]:1"]
    )
)
def test_rejection_quotes_nothing_of_the_text(form: str) -> None:
    secret = "hunter2.eyJhbGciOi"
    with pytest.raises(AddressError) as refusal:
        parse_route_url(form.format(secret))
    assert secret not in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
