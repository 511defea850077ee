"""The search for leaked tokens finds them."""

import pytest

from tests.gateway import minted, tokens


@pytest.mark.parametrize("show", [str, lambda token: token.rpartition(".")[2], lambda token: f"Pomerium {token}\n"])
def test_a_token_or_its_signature_is_found_and_not_shown(show) -> None:
    token = tokens.mint()
    with pytest.raises(AssertionError) as found:
        minted.assert_none_in(f"before {show(token)} after")
    assert token.rpartition(".")[2] not in str(found.value)


def test_other_text_is_let_through() -> None:
    tokens.mint()
    minted.assert_none_in("a line of a log with its request_id 5d1b08f0-4c7e")
