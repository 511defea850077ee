"""The HTTP header that carries a token. Pure."""

from __future__ import annotations

from pydantic import SecretStr


def header(name: str, scheme: str, token: SecretStr) -> dict[str, str]:
    """Return the header that carries a token (wire contract §2.1: forms 1, 5 and 6)."""
    secret = token.get_secret_value()
    if scheme == "bearer":
        return {name: f"Bearer {secret}"}
    return {name: secret if name == "x-pomerium-authorization" else f"Pomerium {secret}"}
