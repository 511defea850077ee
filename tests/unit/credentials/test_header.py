"""The header that carries a token."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from pomagent.credentials.header import header


@pytest.mark.parametrize(
    ("name", "scheme", "expected"),
    [
        ("authorization", "pomerium", {"authorization": "Pomerium eyJ.a.b"}),
        ("x-pomerium-authorization", "pomerium", {"x-pomerium-authorization": "eyJ.a.b"}),
        ("authorization", "bearer", {"authorization": "Bearer eyJ.a.b"}),
    ],
    ids=["form 6", "form 5", "form 1"],
)
def test_the_header_has_the_form_that_the_gateway_reads(name, scheme, expected):
    assert header(name, scheme, SecretStr("eyJ.a.b")) == expected
