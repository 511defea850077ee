"""Whose name a request may call this machine by."""

from __future__ import annotations

import pytest

from pomagent.status.conversation import is_own_name

NAMES = frozenset({"bastion-1.example.com", "bastion-1"})


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:9765", "LocalHost:1", "status.localhost", "127.0.0.1:9765", "127.0.0.1", "[::1]:9765",
     "[::1]", "::1", "10.1.2.3:9765", "bastion-1:9765", "BASTION-1.example.com.", "bastion-1.example.com:80"],
)  # fmt: skip
def test_it_answers_to_its_addresses_and_its_own_names(host: str) -> None:
    assert is_own_name(host, NAMES)


@pytest.mark.parametrize(
    "host",
    ["evil.example.com", "evil.example.com:9765", "127.0.0.1.evil.example.com", "localhost.evil.example.com",
     "bastion-2", "127.0.0.1:9765:evil.com", "[::1].evil.com", "notlocalhost", "", ":9765", "127.1.evil", "0x7f.1"],
)  # fmt: skip
def test_it_does_not_answer_to_others(host: str) -> None:
    assert not is_own_name(host, NAMES)
