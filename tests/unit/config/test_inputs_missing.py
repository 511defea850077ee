"""What a file named by a credential or gateway holds is never a mistake of agent.toml: its routes wait for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from pomagent.config.load import InputsMissing
from pomagent.errors import ConfigError, GatewayUnusable, Recovery
from pomagent.gateway.dialer import Dialer
from pomagent.gateway.gateways import _trusts
from pomagent.reload.outcome import compare
from pomagent.settings import Settings
from pomagent.transport.resolver import Resolver

Load: TypeAlias = Callable[..., Settings]

FIELDS = {
    "service_account_file": '[credentials.default]\nservice_account_file = "input"\n[gateways.corp]\n',
    "systemd_credential": '[credentials.default]\nsystemd_credential = "input"\n[gateways.corp]\n',
    "ca_file": '[gateways.corp]\nca_file = "input"\n',
    "client_cert_file": '[gateways.corp]\nclient_cert_file = "input"\n',
    "client_key_file": '[gateways.corp]\nclient_cert_file = "input"\nclient_key_file = "input"\n',
    "forward_proxy_credentials_file": (
        '[gateways.corp]\nforward_proxy = "http://proxy:3128"\nforward_proxy_credentials_file = "input"\n'
    ),
}
REST = 'url = "https://edge.example.com"\n[[routes]]\nfrom = "a:1"\nlisten = "127.0.0.1:1"\ngateway = "corp"\n'


def _is_open_to_all(path: Path) -> None:
    path.write_text("a-token")
    path.chmod(0o644)


def _holds(content: bytes) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        path.touch(0o600)
        path.write_bytes(content)

    return write


KINDS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "directory": Path.mkdir,
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path),
    "dangling link": lambda path: path.symlink_to("no-such-file"),
    "empty": _holds(b""),
    "half written": _holds(b"-----BEGIN CERTIFICATE-----\nMIIB"),
    "binary": _holds(b"\xff\xfe\x00"),
    "readable by all": _is_open_to_all,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", FIELDS)
def test_unusable_file_costs_only_the_routes_that_need_it(field: str, kind: str, load_text: Load) -> None:
    KINDS[kind](Path("input"))
    with pytest.raises(InputsMissing) as missing:
        load_text(FIELDS[field] + REST, {"CREDENTIALS_DIRECTORY": str(Path.cwd())})
    settings = missing.value.settings
    (route,) = settings.routes
    assert Path.cwd() / "input" in settings.watched
    assert {problem.key.split(".")[0] for problem in settings.waits_for} <= {"credentials", "gateways"}
    assert all("refuse their clients" in warning for warning in settings.warnings if "input" in warning)
    if route.credential:
        assert route.credential.token is None  # it is read when it is needed, and its absence is an error
        assert not route.gateway.problem
    else:
        assert "input" in route.gateway.problem
        assert _trusts(route.gateway) == []  # not even a context with the system's CAs is made


def test_gateway_with_a_missing_file_is_not_dialed(load_text: Load) -> None:
    with pytest.raises(InputsMissing) as missing:
        load_text(FIELDS["ca_file"] + REST)
    resolver = Resolver()
    with pytest.raises(GatewayUnusable, match="cannot be read: No such file") as refusal:
        Dialer(missing.value.settings.routes[0].gateway, None, resolver).dial("a:1")
    resolver.close()
    assert refusal.value.recovery is Recovery.OPERATOR


def test_another_reason_is_another_hash(load_text: Load) -> None:
    shas = set()
    for kind in ("missing", "empty", "binary"):
        Path("input").unlink(missing_ok=True)
        KINDS[kind](Path("input"))
        with pytest.raises(InputsMissing) as missing:
            load_text(FIELDS["service_account_file"] + REST)
        shas.add(missing.value.settings.sha)
    assert len(shas) == 3


@pytest.mark.parametrize(
    "text",
    [
        FIELDS["ca_file"] + REST + "colour = 1\n",  # a mistake of the text beside it
        '[credentials.default]\nenv = "UNSET"\n[gateways.corp]\n' + REST,  # a variable never changes
        '[credentials.default]\nsystemd_credential = "x"\n[gateways.corp]\n' + REST,  # nor does its directory
        '[credentials.default]\nservice_account_file = "eyJhbGciOiJIUzI1NiJ9.e30.c2ln"\n[gateways.corp]\n' + REST,
        '[gateways.corp]\nclient_key_file = "input"\n' + REST,
    ],
)
def test_mistake_that_no_file_can_mend_rejects_everything(text: str, load_text: Load) -> None:
    with pytest.raises(ConfigError) as refusal:
        load_text(text)
    assert not isinstance(refusal.value, InputsMissing)
    assert not refusal.value.may_pass


@pytest.mark.parametrize("field", FIELDS)
def test_file_that_holds_something_else_is_a_change_that_a_reload_can_name(field: str, load_text: Load) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(Path.cwd())}
    found = []
    for content in (b"", b"\xff\xfe\x00"):
        _holds(content)(Path("input"))
        with pytest.raises(InputsMissing) as missing:
            load_text(FIELDS[field] + REST, environ)
        found.append(missing.value.settings)
    before, after = found
    assert before.routes == after.routes or compare(before, after).plan.replaced
