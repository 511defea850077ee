"""The environment's forward proxy, and what NO_PROXY keeps from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pomagent.protocol.proxy_env import ProxyUrl, goes_direct, is_excluded, parse_proxy_url, proxy_variable
from pomagent.protocol.route_url import AddressError, parse_host_port
from pomagent.settings import HostPort

EDGE = HostPort("edge.corp.example.com", 443)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ("", "")),
        ({"HTTPS_PROXY": "a:1"}, ("HTTPS_PROXY", "a:1")),
        ({"HTTPS_PROXY": "a:1", "https_proxy": "b:1"}, ("https_proxy", "b:1")),
        ({"https_proxy": "", "HTTPS_PROXY": "a:1"}, ("HTTPS_PROXY", "a:1")),
        ({"https_proxy": " ", "ALL_PROXY": " a:1 "}, ("ALL_PROXY", "a:1")),
        ({"ALL_PROXY": "c:1", "HTTPS_PROXY": "a:1"}, ("HTTPS_PROXY", "a:1")),
        ({"ALL_PROXY": "c:1", "all_proxy": "d:1"}, ("all_proxy", "d:1")),
        ({"HTTP_PROXY": "e:1", "http_proxy": "f:1"}, ("", "")),
    ],
)
def test_variables_have_an_order(environ: dict[str, str], expected: tuple[str, str]) -> None:
    assert proxy_variable(environ, tls=True) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"http_proxy": "f:1", "ALL_PROXY": "c:1"}, ("http_proxy", "f:1")),
        ({"HTTP_PROXY": "e:1"}, ("", "")),
        ({"HTTPS_PROXY": "a:1", "ALL_PROXY": "c:1"}, ("ALL_PROXY", "c:1")),
    ],
)
def test_gateway_without_tls_ignores_upper_case_http_proxy(environ: dict[str, str], expected: tuple[str, str]) -> None:
    assert proxy_variable(environ, tls=False) == expected


# NO_PROXY, target, excluded?
NO_PROXY = [
    ("", "edge.example.com:443", False),
    (" , ,", "edge.example.com:443", False),
    ("*", "edge.example.com:443", True),
    ("a.test,*", "edge.example.com:443", True),
    ("edge.example.com", "edge.example.com:443", True),
    ("EDGE.Example.COM", "edge.example.com:443", True),
    ("edge.example.com.", "edge.example.com:443", True),
    ("example.com", "edge.example.com:443", True),
    ("example.com", "example.com:443", True),
    ("example.com", "notexample.com:443", False),
    ("example.com", "example.com.evil.test:443", False),
    ("xample.com", "example.com:443", False),
    (".example.com", "edge.example.com:443", True),
    (".example.com", "deep.edge.example.com:443", True),
    (".example.com", "example.com:443", False),
    ("*.example.com", "edge.example.com:443", True),
    ("*.example.com", "example.com:443", False),
    ("a.test, example.com b.test", "edge.example.com:443", True),
    ("example.com:443", "edge.example.com:443", True),
    ("example.com:8443", "edge.example.com:443", False),
    (".example.com:443", "edge.example.com:443", True),
    ("10.1.2.3", "10.1.2.3:443", True),
    ("10.1.2.3:443", "10.1.2.3:443", True),
    ("10.1.2.3:22", "10.1.2.3:443", False),
    ("10.1.2.3", "10.1.2.30:443", False),
    ("2.3", "10.1.2.3:443", False),
    ("10.0.0.0/8", "10.1.2.3:443", True),
    ("10.1.2.3/8", "10.200.0.1:443", True),
    ("10.0.0.0/8", "11.1.2.3:443", False),
    ("10.0.0.0/8", "edge.example.com:443", False),
    ("0.0.0.0/0", "2001:db8::1", False),
    ("10.0.0.0/99", "10.1.2.3:443", False),
    ("a/b/c", "edge.example.com:443", False),
    ("2001:db8::1", "2001:db8::1", True),
    ("2001:0DB8:0::1", "2001:db8::1", True),
    ("[2001:db8::1]", "2001:db8::1", True),
    ("[2001:db8::1]:443", "2001:db8::1", True),
    ("[2001:db8::1]:22", "2001:db8::1", False),
    ("2001:db8::/32", "2001:db8::1", True),
    ("[2001:db8::]/32", "2001:db8::1", True),
    ("2001:db8::/32", "10.1.2.3:443", False),
    (":443", "edge.example.com:443", False),
    ("http://edge.example.com", "edge.example.com:443", False),
]


@pytest.mark.parametrize(("no_proxy", "target", "expected"), NO_PROXY)
def test_no_proxy_excludes_targets(no_proxy: str, target: str, expected: bool) -> None:
    address = HostPort(target, 443) if target.count(":") > 1 else parse_host_port(target)
    assert is_excluded(no_proxy, address) is expected


@given(st.text(max_size=60), st.sampled_from(["edge.example.com", "10.1.2.3", "2001:db8::1"]))
def test_no_value_of_no_proxy_is_an_error(no_proxy: str, host: str) -> None:
    assert is_excluded(no_proxy, HostPort(host, 443)) in (True, False)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_bypasses_the_proxy(host: str) -> None:
    assert goes_direct({}, HostPort(host, 443))


def test_the_lower_case_no_proxy_wins() -> None:
    assert goes_direct({"NO_PROXY": "example.com"}, EDGE)
    assert not goes_direct({"NO_PROXY": "example.com", "no_proxy": "other.test"}, EDGE)
    assert goes_direct({"NO_PROXY": "example.com", "no_proxy": ""}, EDGE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://proxy.test", ProxyUrl("http", HostPort("proxy.test", 80))),
        ("https://proxy.test/", ProxyUrl("https", HostPort("proxy.test", 443))),
        ("SOCKS5://proxy.test", ProxyUrl("socks5", HostPort("proxy.test", 1080))),
        ("socks5h://[2001:db8::1]:9", ProxyUrl("socks5h", HostPort("2001:db8::1", 9))),
        ("proxy.test:3128", ProxyUrl("http", HostPort("proxy.test", 3128))),
        ("http://me:p%40ss%3A@proxy.test", ProxyUrl("http", HostPort("proxy.test", 80), "me:p@ss:")),
        ("me@proxy.test", ProxyUrl("http", HostPort("proxy.test", 80), "me:")),
    ],
)
def test_the_forms_of_a_proxy_in_the_environment(text: str, expected: ProxyUrl) -> None:
    assert parse_proxy_url(text, default_scheme="http", may_have_credentials=True) == expected


@pytest.mark.parametrize(
    "text", ["", "proxy.test", "socks4://proxy.test", "http://", "http://a:b", "http://a/b", "http://u:hunter2@a:1"]
)
def test_malformed_proxy_url_is_not_quoted(text: str) -> None:
    with pytest.raises(AddressError) as error:
        parse_proxy_url(text)
    assert "hunter2" not in str(error.value)


def test_password_is_not_in_the_repr() -> None:
    url = parse_proxy_url("http://me:hunter2@proxy.test", may_have_credentials=True)
    assert repr(url) == "ProxyUrl(http://proxy.test:80)"
