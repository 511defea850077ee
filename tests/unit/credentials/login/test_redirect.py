"""Requests and pasted addresses with and without a login's token."""

from __future__ import annotations

import pytest

from pomagent.credentials.login.redirect import ForgedCallback, NotTheCallback, Redirect

REDIRECT = Redirect(41234, "n0nce")


def test_the_address_is_literal_loopback_with_the_nonce_in_its_path():
    assert REDIRECT.uri == "http://127.0.0.1:41234/cb/n0nce"


def test_the_repr_does_not_show_the_nonce():
    assert "n0nce" not in repr(REDIRECT)


@pytest.mark.parametrize(
    "target",
    [
        "/cb/n0nce?pomerium_jwt=eyJ.a.b",
        "http://127.0.0.1:41234/cb/n0nce?pomerium_jwt=eyJ.a.b",
        "http://localhost:9999/cb/n0nce?x=1&pomerium_jwt=eyJ.a.b#end",  # over a forwarded port
    ],
)
def test_the_token_is_read_from_a_request_and_from_a_pasted_address(target):
    assert REDIRECT.token_in(target).get_secret_value() == "eyJ.a.b"


@pytest.mark.parametrize("path", ["/", "/cb/", "/cb/n0nc", "/cb/n0ncex", "/cb/N0NCE", "/CB/n0nce", "/cb/n0nce/", "/é"])
def test_a_token_without_the_nonce_is_forged(path):
    with pytest.raises(ForgedCallback):
        REDIRECT.token_in(f"{path}?pomerium_jwt=eyJ.a.b")


@pytest.mark.parametrize(
    "target",
    [
        "/favicon.ico", "/", "", "*", "/cb/n0nce", "/cb/n0nce?pomerium_jwt=", "/cb/n0nce?pomerium_jwt=a%20b",
        "/cb/n0nce?pomerium_jwt=a%0d%0ab", "/cb/n0nce?pomerium_jwt=%c3%a9", "http://[::1", "paste what?",
        "/cb/n0nce?pomerium_jwt=a&pomerium_jwt=b", "/cb/n0nce?" + "&".join(f"a{n}=1" for n in range(40)),
        "/cb/n0nce?pomerium_jwt=" + "x" * (64 * 1024 + 1),
    ],
)  # fmt: skip
def test_a_request_without_a_usable_token_is_no_forgery(target):
    with pytest.raises(NotTheCallback) as refused:
        REDIRECT.token_in(target)
    assert not isinstance(refused.value, ForgedCallback)


def test_a_refusal_does_not_repeat_the_token():
    for target in ("/cb/other?pomerium_jwt=eyJ.secret.x", "/cb/n0nce?pomerium_jwt=eyJ.secret.x%20y"):
        with pytest.raises(NotTheCallback) as refused:
            REDIRECT.token_in(target)
        assert "secret" not in str(refused.value)
