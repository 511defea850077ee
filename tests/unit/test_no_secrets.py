"""No token reaches a repr, a message, a traceback or the log. ``config/test_no_secrets.py`` covers the files."""

from __future__ import annotations

import traceback
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from pomagent.credentials.header import header
from pomagent.credentials.token import Token
from pomagent.errors import CredentialError
from pomagent.protocol.answers import ROWS, refusal
from pomagent.protocol.connect import Answer, ConnectRequest, Exchange, MalformedAnswer
from pomagent.reload.plan import diff
from pomagent.settings import Credential, Gateway, HostPort, Route, Settings, Trust
from tests.fakes.log import FakeLog

SECRET = "eyJhbGciOi.S3CR3T.c2lnbmF0dXJl"
CREDENTIAL = Credential("ops", "service_account_file", Path("/etc/pomagent/ops.jwt"), token=SecretStr(SECRET))
GATEWAY = Gateway("corp", HostPort("edge.example.com", 443), trust=Trust(ca_pem=f"-----BEGIN {SECRET}"))
ROUTE = Route("db", HostPort("127.0.0.1", 5432), HostPort("db.example.com", 5432), GATEWAY, CREDENTIAL)
SETTINGS = Settings(Path("/etc/pomagent/agent.toml"), routes=(ROUTE,))


def shown(value: object) -> str:
    return f"{value!r} {value!s} {value:}"


@pytest.mark.parametrize("value", [CREDENTIAL, GATEWAY, ROUTE, SETTINGS], ids=lambda value: type(value).__name__)
def test_settings_show_no_secret(value):
    assert SECRET not in shown(value)


def test_plan_shows_no_secret():
    changed = replace(SETTINGS, routes=(replace(ROUTE, pool_max=9),))
    assert SECRET not in shown(diff(SETTINGS, changed))
    assert SECRET not in shown(diff(None, SETTINGS))


def test_plain_text_fields_of_a_credential_hold_no_token():
    """Only SecretStr hides a token, so this test lists what the plain text fields of a credential may hold."""
    assert is_dataclass(Credential)
    types = {field.name: str(field.type) for field in fields(Credential)}
    assert {name for name, kind in types.items() if "SecretStr" in kind} == {"token"}
    assert {name for name, kind in types.items() if "str" in kind} == {"name", "variable", "command"}


def test_token_in_use_shows_no_secret():
    token = Token(CREDENTIAL, lambda credential: SecretStr(SECRET), FakeLog().log)
    assert SECRET not in shown(token)
    assert SECRET not in shown(token.value)


def test_log_of_credential_events_shows_no_secret():
    fake_log = FakeLog()
    sources = iter([SecretStr("eyJ.other." + SECRET), CredentialError("cannot be read")])

    def read(credential: Credential) -> SecretStr:
        found = next(sources)
        if isinstance(found, CredentialError):
            raise found
        return found

    token = Token(CREDENTIAL, read, fake_log.log)
    assert token.reread(SecretStr(SECRET))
    assert not token.reread(token.value)
    assert len(fake_log.lines) == 2
    assert "S3CR3T" not in fake_log.text


def test_logged_credential_shows_no_secret():
    fake_log = FakeLog()
    fake_log.log.info("agent.started", version=CREDENTIAL, pid=CREDENTIAL.token, routes=ROUTE, quarantined=SETTINGS)
    assert "S3CR3T" not in fake_log.text


def test_exchange_shows_no_secret():
    request = ConnectRequest("db.example.com:5432", header("authorization", "pomerium", SecretStr(SECRET)))
    assert SECRET.encode() in request.text
    assert SECRET not in shown(request) + shown(Exchange(request))


@pytest.mark.parametrize("broken", [f"{SECRET}\r\nX-Evil: 1", f"{SECRET}\x00", f"{SECRET}é"])
@pytest.mark.parametrize("name", ["authorization", "x-pomerium-authorization"])
def test_token_that_no_request_can_carry_shows_in_no_traceback(name, broken):
    """The traceback would be logged as ``greenlet.crashed``, with the libraries' messages."""
    with pytest.raises(ValueError, match="cannot carry") as refused:
        ConnectRequest("db.example.com:5432", header(name, "pomerium", SecretStr(broken)))
    assert "S3CR3T" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("status", sorted({status for row in ROWS for status in row.statuses} | {418, 500}))
def test_refusal_names_the_credential_and_never_its_token(status):
    error = refusal(Answer(status, {}), gateway="edge:443", destination="db:5432", credential=CREDENTIAL.name)
    assert SECRET not in shown(error)


def test_echoing_gateway_gets_no_secret_into_the_log():
    exchange = Exchange(ConnectRequest("db.example.com:5432", header("authorization", "pomerium", SecretStr(SECRET))))
    with pytest.raises(MalformedAnswer) as malformed:
        exchange.receive(exchange.request)
    assert SECRET not in "".join(traceback.format_exception(malformed.value))
