"""Credentials share one token each, which survives a reload as long as its source is the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from pydantic import SecretStr

from pomagent.credentials.tokens import Tokens
from pomagent.settings import Credential
from tests.fakes.greenlets import settle
from tests.fakes.log import FakeLog

MINTED = Credential("default", "command", command=("mint",))
OTHER = Credential("other", "command", command=("mint", "--other"))


@pytest.fixture
def tokens() -> Iterator[Tokens]:
    running = Tokens(lambda _: SecretStr("minted"), FakeLog().log)
    yield running
    running.close()
    settle()  # the refreshers end


def test_credential_has_one_token(tokens: Tokens) -> None:
    assert tokens.of(MINTED) is tokens.of(MINTED)
    assert tokens.of(MINTED) is not tokens.of(OTHER)
    assert len(tokens.in_use) == 2


def test_value_is_none_before_the_first_token(tokens: Tokens) -> None:
    assert tokens.value_of(MINTED) is None
    token = tokens.of(MINTED)
    assert tokens.value_of(MINTED) is None
    token.obtain()
    assert tokens.value_of(MINTED) == SecretStr("minted")


def test_unused_token_is_closed_and_forgotten(tokens: Tokens) -> None:
    token = tokens.of(MINTED)
    tokens.of(OTHER)
    tokens.keep_only({MINTED, None})
    assert tokens.in_use == [token]


def test_token_follows_a_changed_recheck_s(tokens: Tokens) -> None:
    token = tokens.of(MINTED)
    often = replace(MINTED, recheck_s=60.0)
    tokens.keep_only({often})
    assert tokens.in_use == [token]
    assert tokens.of(often) is token
    assert token.credential == often
