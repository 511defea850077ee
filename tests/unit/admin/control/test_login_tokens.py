"""Login tokens that commands send to the running agent."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from pomagent.admin.control import login_tokens
from pomagent.admin.control.login_tokens import LoginTokens
from pomagent.admin.control.server import Declined
from pomagent.config.secrets import MAX_TOKEN_BYTES
from pomagent.credentials.login.stored import presentable_token, stored_token, user_cache
from pomagent.errors import CredentialError
from pomagent.settings import Credential, Gateway, HostPort, Route
from tests.fakes.log import FakeLog

CORP = Gateway("corp", HostPort("edge.example.com", 443))
OTHER = Gateway("other", HostPort("other.example.com", 443))
PEOPLE = Credential("people", "login")
GUESTS = Credential("guests", "login")
MACHINE = Credential("machine", "service_account_file", Path("/etc/token"), token=SecretStr("eyJ.machine.x"))
DB = Route("db", HostPort("127.0.0.1", 5432), HostPort("db.example.com", 5432), CORP, PEOPLE)
WEB = replace(DB, name="web", listen=HostPort("127.0.0.1", 8080))
LAB = replace(DB, name="lab", credential=GUESTS)
BATCH = replace(DB, name="batch", gateway=OTHER, credential=MACHINE)
TOKEN = "eyJ.login.S3CR3T"


class FakeAgent:
    def __init__(self) -> None:
        self.routes: tuple[Route, ...] = (DB, WEB, BATCH)
        self.taken: list[tuple[str, str]] = []
        self.dropped: list[str] = []

    def take_token(self, credential: Credential, fresh: SecretStr) -> None:
        self.taken.append((credential.name, fresh.get_secret_value()))

    def drop_token(self, credential: Credential) -> None:
        self.dropped.append(credential.name)


class Host:
    """An agent, its state directory and its log."""

    def __init__(self, directory: Path) -> None:
        self.agent = FakeAgent()
        self.environ = {"STATE_DIRECTORY": str(directory / "state")}
        self.log = FakeLog()
        self.tokens = LoginTokens(self.agent, self.environ, self.log.log)  # type: ignore[arg-type]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_token_is_stored_and_given_to_all_routes_of_the_credential(host):
    answer = host.tokens.take({"gateway": "corp", "token": TOKEN})
    assert answer == {"credential": "people", "routes": ["db", "web"], "kept": True}
    assert host.agent.taken == [("people", TOKEN)]
    assert stored_token(PEOPLE, CORP, host.environ) == SecretStr(TOKEN)
    assert host.tokens.read(PEOPLE) == SecretStr(TOKEN)


def test_several_credentials_of_a_gateway_never_mix(host):
    host.agent.routes += (LAB,)
    with pytest.raises(Declined, match=r"choose one with --credential.*guests, people"):
        host.tokens.take({"gateway": "corp", "token": TOKEN})
    assert host.tokens.take({"gateway": "corp", "token": TOKEN, "credential": "guests"})["routes"] == ["lab"]
    assert host.agent.taken == [("guests", TOKEN)]
    assert stored_token(PEOPLE, CORP, host.environ) is None


@pytest.mark.parametrize(
    "body", [{"gateway": "other"}, {"gateway": "nowhere"}, {}, {"gateway": "corp", "credential": "machine"}]
)
def test_a_token_that_no_route_uses_is_declined(host, body):
    with pytest.raises(Declined, match='login = "browser"'):
        host.tokens.take({**body, "token": TOKEN})
    assert host.agent.taken == []


@pytest.mark.parametrize("value", [1, None, ["corp"], {}])
@pytest.mark.parametrize("key", ["gateway", "token", "credential"])
def test_an_argument_that_is_not_a_text_is_declined(host, key, value):
    with pytest.raises(Declined, match=f"{key} must be a text"):
        host.tokens.take({"gateway": "corp", "token": TOKEN, key: value})


@pytest.mark.parametrize("token", ["", "S3CR3T S3CR3T", "S3CR3T\r\nX: y", "S3CR3Té"])
def test_an_invalid_token_is_declined_and_not_repeated(host, token):
    with pytest.raises(Declined) as declined:
        host.tokens.take({"gateway": "corp", "token": token})
    assert "S3CR3T" not in str(declined.value)


@pytest.mark.parametrize(
    ("length", "is_taken"), [(MAX_TOKEN_BYTES - 1, True), (MAX_TOKEN_BYTES, True), (MAX_TOKEN_BYTES + 1, False)]
)
def test_a_token_has_a_maximum_length(host, length, is_taken):
    body = {"gateway": "corp", "token": "x" * length}
    if is_taken:
        assert host.tokens.take(body)["kept"]
        assert host.tokens.read(PEOPLE) == SecretStr("x" * length)
    else:
        with pytest.raises(Declined, match="longer than"):
            host.tokens.take(body)


def test_a_token_that_cannot_be_stored_is_still_used(host, tmp_path):
    (tmp_path / "state").touch()
    assert host.tokens.take({"gateway": "corp", "token": TOKEN})["kept"] is False
    assert host.agent.taken == [("people", TOKEN)]
    assert "STATE_DIRECTORY" in host.log.text
    assert TOKEN not in host.log.text


def test_a_missing_login_names_the_command_to_run(host):
    with pytest.raises(CredentialError, match="run: pomagent login corp"):
        host.tokens.read(PEOPLE)


def test_a_forgotten_login_is_removed(host):
    host.tokens.take({"gateway": "corp", "token": TOKEN})
    assert host.tokens.forget({"gateway": "corp"}) == {
        "credential": "people",
        "routes": ["db", "web"],
        "forgotten": 1,
    }
    assert host.agent.dropped == ["people"]
    assert stored_token(PEOPLE, CORP, host.environ) is None


def test_a_login_whose_file_cannot_be_removed_is_reported(host, monkeypatch):
    def refused(credential: str, environ: Mapping[str, str]) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(login_tokens, "forget_tokens", refused)
    host.tokens.take({"gateway": "corp", "token": TOKEN})
    with pytest.raises(Declined, match="Permission denied"):
        host.tokens.forget({"gateway": "corp"})
    assert host.agent.dropped == []


def test_a_token_of_another_gateway_is_used_until_the_gateway_has_its_own(host):
    host.tokens.take({"gateway": "corp", "token": TOKEN})
    assert stored_token(PEOPLE, OTHER, host.environ) == SecretStr(TOKEN)
    host.agent.routes += (replace(DB, name="far", gateway=OTHER),)
    host.tokens.take({"gateway": "other", "token": "eyJ.other.x"})
    assert stored_token(PEOPLE, OTHER, host.environ) == SecretStr("eyJ.other.x")
    assert stored_token(PEOPLE, CORP, host.environ) == SecretStr(TOKEN)


def test_commands_prefer_the_agents_token_to_the_users_own(host):
    with pytest.raises(CredentialError, match="pomagent login corp"):
        presentable_token(PEOPLE, CORP, host.environ)
    user_cache(host.environ).store(CORP.address, SecretStr("eyJ.own.x"))
    assert presentable_token(PEOPLE, CORP, host.environ) == SecretStr("eyJ.own.x")
    host.tokens.take({"gateway": "corp", "token": TOKEN})
    assert presentable_token(PEOPLE, CORP, host.environ) == SecretStr(TOKEN)


def test_each_credential_has_its_own_directory(host, tmp_path):
    host.tokens.take({"gateway": "corp", "token": TOKEN})
    (file,) = (tmp_path / "state/logins").rglob("*.json")
    assert file.parent.name == "credential-people"
    assert json.loads(file.read_text())["gateway"] == "edge.example.com:443"
