"""Tokens that look like the ones Pomerium hands out. The authorizer compares them as opaque strings."""

import base64
import json
import secrets
import time

from tests.gateway import minted


def mint(subject: str = "bastion@example.test", expires_in_s: float | None = None) -> str:
    """A new JWT with a random id. ``exp`` only if asked for, since Pomerium's own carry none."""
    claims: dict[str, object] = {"jti": secrets.token_hex(8), "sub": subject, "iat": int(time.time())}
    if expires_in_s is not None:
        claims["exp"] = int(time.time() + expires_in_s)
    signed = (_segment({"alg": "HS256", "typ": "JWT"}), _segment(claims), secrets.token_urlsafe(32))
    return minted.remember(".".join(signed))


def _segment(value: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
