"""Claims of a token, as far as it has any."""

from __future__ import annotations

import base64
import json

import pytest
from pydantic import SecretStr

from pomagent.credentials.login.claims import Claims, claims_of


def jwt(claims: object) -> SecretStr:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return SecretStr(f"eyJhbGciOiJIUzI1NiJ9.{payload}.c2ln")


def test_claims_are_read_without_being_verified():
    token = jwt({"iss": "auth.example.com", "idp_id": "6c1f", "sub": "alice", "iat": 100, "exp": 200, "jti": "x"})
    assert claims_of(token) == Claims("auth.example.com", "6c1f", "alice", 100.0, 200.0)


@pytest.mark.parametrize("token", [jwt([]), jwt("x"), SecretStr("opaque"), SecretStr("a.%%%.b"), SecretStr("a.b.c"),
                                   jwt({"iss": 1, "sub": None, "exp": "soon", "idp_id": "\x1b[2J"})])  # fmt: skip
def test_an_opaque_or_malformed_token_has_no_claims(token):
    assert claims_of(token) == Claims()
