"""Routes get their gateway, credential and defaults, and every ``auto`` is decided."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pomagent.settings import HostPort, Route, Settings, UnixAddress

Load = Callable[..., Settings]

GATEWAY = '[gateways.corp]\nurl = "https://edge.example.com"\n'
CREDENTIALS = '[credentials.default]\nenv = "D"\n[credentials.other]\nenv = "O"\n'
TOKENS = {"D": "default-token", "O": "other-token"}


@pytest.fixture
def one_route(load_text: Load) -> Callable[..., Route]:
    def load_one(keys: str = "", before: str = "", port: int = 6379) -> Route:
        route = f'[[routes]]\nfrom = "db.example.com:{port}"\nlisten = "127.0.0.1:1"\n{keys}\n'
        return load_text(before + route, TOKENS).routes[0]

    return load_one


def test_routes_through_the_same_edge_share_one_gateway(load_text: Load) -> None:
    routes = load_text(
        '[[routes]]\nfrom = "tcp+https://edge.example.com/a.int:1"\nlisten = "127.0.0.1:1"\n'
        '[[routes]]\nfrom = "tcp+https://EDGE.example.com:443/b.int:1"\nlisten = "127.0.0.1:2"\n'
    ).routes
    assert routes[0].gateway is routes[1].gateway


def test_a_named_gateway_leaves_only_the_destination_of_from(load_text: Load) -> None:
    text = '[[routes]]\nfrom = "tcp+https://ignored.example.com/a.int:1"\nlisten = "127.0.0.1:1"\ngateway = "corp"\n'
    route = load_text(GATEWAY + text).routes[0]
    assert (HostPort("a.int", 1), HostPort("edge.example.com", 443)) == (route.destination, route.gateway.address)


def test_connect_to_is_what_is_dialled(one_route: Callable[..., Route]) -> None:
    gateway = one_route('gateway = "corp"', GATEWAY + 'connect_to = "10.0.0.1:8443"\n').gateway
    assert (HostPort("edge.example.com", 443), HostPort("10.0.0.1", 8443)) == (gateway.address, gateway.dial_address)


@pytest.mark.parametrize(
    ("gateway", "route", "expected"),
    [
        (None, "", "default"),
        (None, 'credential = "other"', "other"),
        (None, 'credential = ""', None),
        ("", "", "default"),
        ('credential = "other"', "", "other"),
        ('credential = ""', "", None),
        ('credential = "other"', 'credential = "default"', "default"),
        ('credential = "other"', 'credential = ""', None),
    ],
)
def test_the_credential_is_the_routes_else_the_gateways_else_the_default(
    gateway: str | None, route: str, expected: str | None, one_route: Callable[..., Route]
) -> None:
    before = CREDENTIALS if gateway is None else f"{CREDENTIALS}{GATEWAY}{gateway}\n"
    keys = route if gateway is None else f'gateway = "corp"\n{route}'
    credential = one_route(keys, before).credential
    assert expected == (credential.name if credential else None)


def test_without_a_default_credential_there_is_none(one_route: Callable[..., Route]) -> None:
    assert one_route("", '[credentials.other]\nenv = "O"\n').credential is None


@pytest.mark.parametrize(
    ("key", "in_defaults", "in_route", "expected"),
    [
        ("pool_max", "9", None, 9),
        ("pool_max", "9", "7", 7),
        ("warm", '"off"', None, "off"),
        ("tags", '["a"]', None, ("a",)),
        ("allow_users", '["root", 1000]', None, ("root", "1000")),
        ("allow_users", '["root"]', "[]", ()),
        ("enabled", "false", None, False),
        ("enabled", "false", "true", True),
    ],
)
def test_defaults_apply_to_keys_that_a_route_does_not_set(
    key: str, in_defaults: str, in_route: str | None, expected: Any, one_route: Callable[..., Route]
) -> None:
    route = one_route(f"{key} = {in_route}" if in_route else "", f"[defaults]\n{key} = {in_defaults}\n")
    assert expected == getattr(route, key)


def test_a_default_gateway_can_be_left_again(one_route: Callable[..., Route]) -> None:
    defaults = GATEWAY + '[defaults]\ngateway = "corp"\n'
    assert one_route("", defaults).gateway.name == "corp"
    assert one_route('gateway = ""', defaults).gateway.name == "db.example.com:443"


@pytest.mark.parametrize(("mode", "expected"), [("0660", 0o660), ("600", 0o600), ("0777", 0o777)])
def test_a_unix_listener_has_its_mode_and_owners(mode: str, expected: int, load_text: Load) -> None:
    keys = f'socket_mode = "{mode}"\nsocket_user = "u"\nsocket_group = "g"\n'
    listen = load_text(f'[[routes]]\nfrom = "a:1"\nlisten = "unix:x.sock"\n{keys}').routes[0].listen
    assert UnixAddress(Path("x.sock").absolute(), expected, "u", "g") == listen


def test_equal_files_make_equal_settings(one_route: Callable[..., Route]) -> None:
    assert one_route('gateway = "corp"', GATEWAY + CREDENTIALS) == one_route('gateway = "corp"', GATEWAY + CREDENTIALS)


def test_a_disabled_route_may_share_its_address_and_port_0_is_free(load_text: Load) -> None:
    entry = '[[routes]]\nname = "{}"\nfrom = "a:1"\nlisten = "127.0.0.1:{}"\n{}\n'
    text = entry.format("a", 1, "") + entry.format("b", 1, "enabled = false")
    text += entry.format("c", 0, "") + entry.format("d", 0, "")
    assert len(load_text(text).routes) == 4
