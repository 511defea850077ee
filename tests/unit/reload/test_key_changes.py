"""Which keys changed, how each is applied, and that no secret shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pomagent.config.model import CredentialTable, GatewayTable
from pomagent.errors import ConfigError
from pomagent.reload.key_changes import CONTENTS, Change, changes
from pomagent.reload.outcome import compare
from pomagent.settings import Settings
from tests.gateway.certificates import Authority

Load = Callable[..., Settings]
Write = Callable[..., Path]

BASE = '[[routes]]\nname = "redis"\nfrom = "redis.example.com:6379"\nlisten = "127.0.0.1:6379"\n'
EDGE = '[gateways.corp]\nurl = "https://edge.example.com"\n'


def test_equal_files_have_no_changes(load_text: Load) -> None:
    assert changes(load_text(BASE), load_text(BASE)) == ()


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("", 'warm = "off"\n', Change("routes.redis.warm", "new-sessions", "auto", "off")),
        ("", "enabled = false\n", Change("routes.redis.enabled", "rebind", "true", "false")),
        ("", 'tags = ["a", "b"]\n', Change("routes.redis.tags", "live", "", "a, b")),
        (EDGE, EDGE + "max_dials = 2\n", None),
    ],
)
def test_changed_key_is_named_with_its_class(load_text: Load, old: str, new: str, change: Change | None) -> None:
    if change is None:  # a gateway that no route uses changes nothing
        assert changes(load_text(old + BASE), load_text(new + BASE)) == ()
    else:
        assert changes(load_text(BASE + old), load_text(BASE + new)) == (change,)


def test_listener_that_becomes_a_unix_socket_is_one_rebinding(load_text: Load, tmp_path: Path) -> None:
    before = load_text(BASE)
    after = load_text(BASE.replace("127.0.0.1:6379", f"unix:{tmp_path}/redis.sock"))
    listen = next(change for change in changes(before, after) if change.key == "routes.redis.listen")
    assert (listen.apply, listen.before, listen.after) == ("rebind", "127.0.0.1:6379", f"unix:{tmp_path}/redis.sock")


def test_key_of_a_gateway_is_named_once_for_all_its_routes(load_text: Load) -> None:
    routes = BASE + 'gateway = "corp"\n' + BASE.replace("redis", "cache").replace("6379", "6380") + 'gateway = "corp"\n'
    before, after = load_text(EDGE + routes), load_text(EDGE + "max_dials = 2\n" + routes)
    assert changes(before, after) == (Change("gateways.corp.max_dials", "new-sessions", "8", "2"),)


GATEWAY_EDITS = {
    "url": '"https://other.example.com:8443"',
    "connect_to": '"127.0.0.1:8443"',
    "credential": '"second"',
    "credential_header": '"x-pomerium-authorization"',
    "ca_file": '"ca.pem"',
    "client_cert_file": '"client.pem"',
    "client_key_file": '"client.pem"',
    "verify_tls": "false",
    "forward_proxy": '"http://proxy.example.com:3128"',
    "forward_proxy_credentials_file": '"proxy-user"',
    "transport": '"http2"',
    "connect_timeout_s": "6",
    "tls_timeout_s": "6",
    "response_timeout_s": "36",
    "max_dials": "9",
    "insecure_http": "true",
}
CREDENTIAL_EDITS = {
    "service_account_file": '"other-token"',
    "systemd_credential": '"token"',
    "env": '"TOKEN"',
    "command": '["/bin/echo", "token"]',
    "command_timeout_s": "31",
    "login": '"browser"',
    "recheck_s": "60",
    "scheme": '"bearer"',
}
NEEDS = {
    "client_cert_file": 'client_key_file = "client.key"\n',
    "client_key_file": 'client_cert_file = "client.pem"\n',
    "forward_proxy_credentials_file": 'forward_proxy = "http://proxy.example.com:3128"\n',
    "insecure_http": "",
}


def test_tables_of_edits_have_every_key() -> None:
    assert set(GATEWAY_EDITS) == set(GatewayTable.model_fields)
    assert set(CREDENTIAL_EDITS) == set(CredentialTable.model_fields)


@pytest.mark.parametrize("key", sorted(GATEWAY_EDITS))
def test_edit_of_any_key_of_a_gateway_is_named_forth_and_back(load_text: Load, write: Write, key: str) -> None:
    _write_files(write)
    given = {"url": '"https://edge.example.com"'}
    edited = given | {key: GATEWAY_EDITS[key]}
    extra = NEEDS.get(key, "")
    before = load_text(_file(given, extra if key.startswith("forward_proxy_") else ""))
    after = load_text(_file(edited, extra))
    if key == "insecure_http":  # only permits another key and has no effect by itself
        assert changes(before, after) == ()
        return
    named = "routes.redis.credential" if key == "credential" else f"gateways.corp.{key}"
    assert named in [change.key for change in changes(before, after)]
    assert named in [change.key for change in changes(after, before)]


@pytest.mark.parametrize("key", sorted(CREDENTIAL_EDITS))
def test_edit_of_any_key_of_a_credential_is_named_forth_and_back(
    load_text: Load, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str
) -> None:
    _write_files(write)
    environ = {"TOKEN": "t", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    source = {} if key in {"systemd_credential", "env", "command", "login"} else {"service_account_file": '"token"'}
    edge = {"url": '"https://edge.example.com"'}
    before = load_text(_file(edge, credential={"service_account_file": '"token"'}), environ)
    after = load_text(_file(edge, credential=source | {key: CREDENTIAL_EDITS[key]}), environ)
    named = f"credentials.default.{key}"
    assert named in [change.key for change in changes(before, after)]
    assert named in [change.key for change in changes(after, before)]


def _write_files(write: Write) -> None:
    authority = Authority(write("token", "token").parent, "ca")
    issued = authority.issue_client()
    key = issued.key_file.read_bytes()
    write("client.pem", issued.cert_file.read_bytes() + key)
    write("client.key", key)
    write("other-token", "other-token")
    write("proxy-user", "user:password")


def _file(gateway: dict[str, str], extra: str = "", credential: dict[str, str] | None = None) -> str:
    def keys(table: dict[str, str]) -> str:
        return "".join(f"{name} = {value}\n" for name, value in table.items())

    source = {"service_account_file": '"token"'}
    return (
        f"[gateways.corp]\n{keys(gateway)}{extra}[credentials.default]\n{keys(credential or source)}"
        f'[credentials.second]\nservice_account_file = "other-token"\n{BASE}gateway = "corp"\n'
    )


def test_replaced_token_is_a_change_that_shows_nothing_of_it(load_text: Load, write: Callable[..., object]) -> None:
    text = '[credentials.default]\nservice_account_file = "token"\n' + BASE
    write("token", "old-secret")
    before = load_text(text)
    write("token", "new-secret")
    found = changes(before, load_text(text))
    assert found == (Change("credentials.default.service_account_file", "new-sessions", CONTENTS, CONTENTS),)
    assert "secret" not in repr(found)


def test_defaults_that_change_show_at_every_route(load_text: Load) -> None:
    routes = BASE + BASE.replace("redis", "cache").replace("6379", "6380")
    found = changes(load_text(routes), load_text("[defaults]\nmax_sessions = 5\n" + routes))
    assert [change.key for change in found] == ["routes.cache.max_sessions", "routes.redis.max_sessions"]


def test_change_that_needs_a_restart_is_rejected_with_its_line(load_text: Load) -> None:
    text, key = '[status]\ncontrol_socket = "/x"\n', "status.control_socket"
    with pytest.raises(ConfigError) as refused:
        compare(load_text(BASE), load_text(text + BASE))
    (problem,) = refused.value.problems
    assert (problem.line, problem.key) == (2, key)
    assert "restart" in problem.message
