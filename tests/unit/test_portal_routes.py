"""The portal's list as ``[[routes]]``: names, ports and texts are valid in agent.toml for any list."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pomagent.cli.gateway_target import Target
from pomagent.cli.routes import to_toml
from pomagent.config.load import load
from pomagent.credentials.edge_api import PortalRoute
from pomagent.settings import Gateway, HostPort, Route, Settings

CORP = Gateway("corp", HostPort("edge.example.com", 443))
DB = Route("orders-db", HostPort("127.0.0.1", 5432), HostPort("db.example.com", 5432), CORP)
KNOWN = Target(CORP, None, Settings(Path("agent.toml"), routes=(DB,), gateways=((CORP, None),)))
BY_ADDRESS = Target(Gateway("edge.example.com:443", CORP.address))


def tcp(name: str, url: str, description: str = "") -> PortalRoute:
    return PortalRoute(name, "tcp", url, description)


def routes(listed: list[PortalRoute], target: Target = KNOWN, taken: tuple[int, ...] = ()) -> list[dict[str, str]]:
    document = tomllib.loads(to_toml(listed, target, lambda port: port not in taken))
    found: list[dict[str, str]] = document.get("routes", [])
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Billing DB", "billing-db"), ("orders-db", "orders-db-2"), ("Ärger", "rger"), ("…", "x.example.com-9000"),
        ("", "x.example.com-9000"), ("-_.a.-", "a"), ("a" * 100, "a" * 60),
    ],
)  # fmt: skip
def test_names_are_valid_and_unused(name, expected):
    (route,) = routes([tcp(name, "tcp+https://x.example.com:9000")])
    assert route["name"] == expected


@pytest.mark.parametrize(
    ("port", "taken", "expected"),
    [
        (9000, (), 9000), (9000, (9000, 9001), 9002), (5432, (), 5433), (22, (), 10022), (443, (10443,), 10444),
        (65535, (65535,), 1024),
    ],
)  # fmt: skip
def test_port_is_the_destinations_if_it_is_free(port, taken, expected):
    (route,) = routes([tcp("x", f"tcp+https://x.example.com:{port}")], taken=taken)
    assert route["listen"] == f"127.0.0.1:{expected}"


def test_no_two_routes_share_a_name_or_a_port():
    found = routes([tcp("x", f"tcp+https://x{n}.example.com:9000") for n in range(5)])
    assert len({route["name"] for route in found}) == len({route["listen"] for route in found}) == 5


def test_unsupported_entries_are_left_out_with_a_comment():
    text = to_toml(
        [PortalRoute("wiki", "http", "https://wiki.example.com"), tcp("all", "tcp+https://*.example.com:22")],
        KNOWN, lambda _: True,
    )  # fmt: skip
    assert text.count("# left out: ") == 2
    assert tomllib.loads(text) == {}


def test_configured_gateway_is_only_named():
    text = to_toml([tcp("x", "tcp+https://x.example.com:9000")], KNOWN, lambda _: True)
    assert "[gateways" not in text
    assert 'gateway = "corp"' in text


def test_gateway_given_by_address_gets_a_table_with_login():
    text = to_toml([], BY_ADDRESS, lambda _: True)
    document = tomllib.loads(text)
    (name,) = document["gateways"]
    assert document["gateways"][name]["url"] == "https://edge.example.com"
    assert document["credentials"][document["gateways"][name]["credential"]] == {"login": "browser"}


@example([("x", 9765, "")])  # status.listen uses that port
@given(st.lists(st.tuples(st.text(max_size=20), st.integers(1, 65535), st.text(max_size=20)), min_size=1, max_size=5))
def test_result_is_valid_for_any_list_of_the_portal(tmp_path_factory, entries):
    listed = [tcp(name, f"tcp+https://x.example.com:{port}", words) for name, port, words in entries]
    path = tmp_path_factory.mktemp("routes") / "agent.toml"
    path.write_text(to_toml(listed, BY_ADDRESS, lambda _: True), encoding="utf-8")
    assert len(load(path, {}).routes) == len(entries)
