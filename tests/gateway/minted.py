"""Every token that this run of the tests has made, so that all output can be searched for all of them."""

_MINTED: set[str] = set()


def remember(token: str) -> str:
    """Search for this token from now on; returns it."""
    _MINTED.add(token)
    return token


def assert_none_in(text: str) -> None:
    """Fail if a token, or its signature alone, is in the text; the message does not show it either."""
    for token in _MINTED:
        signature = token.rpartition(".")[2]
        if token in text or signature in text:
            where = text.index(signature)
            raise AssertionError(f"a token leaked: …{text[max(0, where - 300) : where]}<the token's signature>")
