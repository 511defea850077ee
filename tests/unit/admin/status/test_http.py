"""Which Host headers name this machine, and which requests are cross-site."""

from __future__ import annotations

import pytest

from pomagent.admin.status.http import HttpRequest, is_cross_site, is_own_name

NAMES = frozenset({"bastion-1.example.com", "bastion-1"})


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:9765", "LocalHost:1", "status.localhost", "127.0.0.1:9765", "127.0.0.1", "[::1]:9765",
     "[::1]", "::1", "10.1.2.3:9765", "bastion-1:9765", "BASTION-1.example.com.", "bastion-1.example.com:80"],
)  # fmt: skip
def test_addresses_and_own_names_are_accepted(host: str) -> None:
    assert is_own_name(host, NAMES)


@pytest.mark.parametrize(
    "host",
    ["evil.example.com", "evil.example.com:9765", "127.0.0.1.evil.example.com", "localhost.evil.example.com",
     "bastion-2", "127.0.0.1:9765:evil.com", "[::1].evil.com", "notlocalhost", "", ":9765", "127.1.evil", "0x7f.1"],
)  # fmt: skip
def test_other_names_are_rejected(host: str) -> None:
    assert not is_own_name(host, NAMES)


HERE = "127.0.0.1:9765"


def request(**headers: str) -> HttpRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpRequest("GET", "/status.json", {}, {"host": HERE} | named)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec_fetch_site": "same-origin", "sec_fetch_mode": "cors", "sec_fetch_dest": "empty"},
        {"sec_fetch_site": "none", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"},
        {"origin": f"http://{HERE}"},
        {"host": "Bastion-1:9765", "origin": "https://bastion-1:9765"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"},
    ],
    ids=str,
)
def test_tools_the_status_page_and_followed_links_are_same_site(headers: dict[str, str]) -> None:
    assert not is_cross_site(request(**headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors", "sec_fetch_dest": "empty"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "object"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-origin, cross-site"},
        {"sec_fetch_site": "something-new"},
        {"origin": "https://evil.example.com"},
        {"origin": "http://127.0.0.1:8000"},
        {"origin": f"http://{HERE}.evil.example.com"},
        {"origin": f"http://{HERE}, https://evil.example.com"},
        {"origin": "null"},
        {"origin": ""},
        {"host": "", "origin": "https://evil.example.com"},
        {"sec_fetch_site": "same-origin", "origin": "https://evil.example.com"},
    ],
    ids=str,
)
def test_requests_of_other_websites_are_cross_site(headers: dict[str, str]) -> None:
    assert is_cross_site(request(**headers))
