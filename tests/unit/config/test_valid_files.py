"""Every file of ``tests/data/valid`` is accepted, and so is the example at the top of the repository."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pomagent.config.load import load
from pomagent.config.model import (
    AgentTable,
    CredentialTable,
    DrainTable,
    GatewayTable,
    RouteDefaults,
    StatusTable,
)
from pomagent.config.schema import json_schema
from pomagent.settings import HostPort, Settings, UnixAddress

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "tests" / "data" / "valid").glob("*.toml"))


@pytest.fixture
def load_file(directory: Path, write: Callable[..., Path]) -> Callable[[str], Settings]:
    token = write("bastion.jwt", "a-token\n", 0o640)
    Path("routes.d").mkdir()

    def copy_and_load(name: str) -> Settings:
        shutil.copy(FILES[0].parent / f"{name}.toml", "agent.toml")
        return load(Path("agent.toml"), {"GOOD_TOKEN": "token", "CREDENTIALS_DIRECTORY": str(token.parent)})

    return copy_and_load


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_a_valid_file_is_accepted(name: str, load_file: Callable[[str], Settings]) -> None:
    assert load_file(name).path.is_absolute()


def test_the_smallest_file_is_one_route_with_every_default(load_file: Callable[[str], Settings]) -> None:
    settings = load_file("smallest")
    (route,) = settings.routes
    assert ("redis.corp.example.com-6379", HostPort("127.0.0.1", 6379)) == (route.name, route.listen)
    assert HostPort("redis.corp.example.com", 443) == route.gateway.address
    assert route.credential
    assert route.credential.token
    assert route.credential.token.get_secret_value() == "a-token"
    assert settings.warnings == ()


def test_every_key_at_its_default_means_what_the_smallest_file_means(load_file: Callable[[str], Settings]) -> None:
    everything, smallest = load_file("everything"), load_file("smallest")
    assert everything.agent == smallest.agent
    assert everything.status == smallest.status
    assert everything.drain == smallest.drain
    assert everything.routes[0].credential == smallest.routes[0].credential
    assert everything.routes[0].gateway.trust == smallest.routes[0].gateway.trust


def test_the_forms_of_from_and_listen_are_read(load_file: Callable[[str], Settings]) -> None:
    routes = load_file("forms_of_from").routes
    assert [
        ("plain.example.com-6379", "127.0.0.1:0", "plain.example.com:443"),
        ("own-edge.example.com-6379", "127.0.0.1:0", "own-edge.example.com:443"),
        ("bastion-form.internal-5432", "[::1]:5432", "edge.example.com:8443"),
        ("https-form.internal-5432", "127.0.0.1:5432", "edge.example.com:443"),
        ("upper.example.com-22", f"unix:{Path.cwd()}/run/upper.sock", "upper.example.com:443"),
        ("2001-db8--5-22", "127.0.0.2:5432", "edge.example.com:443"),
        ("clear.example.com-22", "0.0.0.0:2222", "clear"),
        ("xn--bcher-kva.example.com-22", "127.0.0.1:2222", "xn--bcher-kva.example.com:443"),
    ] == [(route.name, str(route.listen), route.gateway.name) for route in routes]
    assert UnixAddress(Path.cwd() / "run/upper.sock", 0o660) == routes[4].listen
    assert [route.gateway.tls for route in routes] == [True] * 6 + [False, True]


def test_each_source_of_a_credential_is_followed(load_file: Callable[[str], Settings]) -> None:
    first, minted, public = load_file("every_source").routes
    assert first.credential
    assert minted.credential
    assert (first.credential.source, first.credential.variable) == ("env", "GOOD_TOKEN")
    assert (minted.credential.source, minted.credential.token, minted.credential.scheme) == ("command", None, "bearer")
    assert minted.credential.command == ("/usr/local/bin/mint-token", "--audience", "pomerium")
    assert public.credential is None


def test_the_example_is_accepted_on_any_machine() -> None:
    settings = load(ROOT / "agent.toml", {})
    assert len(settings.routes) == 1
    assert settings.warnings == ()


def _keys_of_the_schema(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (key for key, value in node.get("properties", {}).items() if "x-apply" in value)
        for value in node.values():
            yield from _keys_of_the_schema(value)


def test_the_example_shows_every_key() -> None:
    shown = set(re.findall(r"^(?:# )?(\w+) = ", (ROOT / "agent.toml").read_text(), re.MULTILINE))
    assert set(_keys_of_the_schema(json_schema())) == shown


def test_the_example_is_accepted_with_all_of_its_keys_set(load_text: Callable[..., Settings], directory: Path) -> None:
    """What is commented out is valid too, apart from a credential's second and further source."""
    text = re.sub(r"^# (?=\w+ = |\[)", "", (ROOT / "agent.toml").read_text(), flags=re.MULTILINE)
    text = re.sub(r"^(service_account_file|systemd_credential|command|login) = .*$", "", text, flags=re.MULTILINE)
    Path("routes.d").mkdir()
    assert len(load_text(text, {"POMAGENT_TOKEN": "token"}).routes) == 1


def test_every_default_in_the_example_is_the_real_one() -> None:
    text = re.sub(r"^# (?=\w+ = |\[)", "", (ROOT / "agent.toml").read_text(), flags=re.MULTILINE)
    shown = tomllib.loads(text)
    examples = {"include", "url", "credential", "service_account_file", "systemd_credential", "env", "command", "login"}
    for table, model in (
        (shown["agent"], AgentTable()),
        (shown["status"], StatusTable()),
        (shown["drain"], DrainTable()),
        (shown["gateways"]["corp"], GatewayTable(url="x")),
        (shown["credentials"]["default"], CredentialTable()),
        (shown["routes"][0], RouteDefaults()),
    ):
        told = {key: value for key, value in table.items() if key not in examples | {"name", "from", "listen"}}
        assert {key: getattr(model, key) for key in told} == told
