"""Reads the claims of a login's token without verifying them, which only the gateway can do (wire contract §2.2)."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from pomagent.credentials.refresh_schedule import life_of


@dataclass(frozen=True, slots=True)
class Claims:
    """Claims of a token. Missing ones are empty or None."""

    issuer: str = ""
    """Host of the authenticate service, one per cluster."""
    idp_id: str = ""
    subject: str = ""
    issued_at: float | None = None
    expires_at: float | None = None


def claims_of(token: SecretStr) -> Claims:
    """Return the claims of a JWT. An opaque token has none."""
    text = token.get_secret_value()
    payload, life = _payload(text), life_of(text)
    issuer, idp_id, subject = (_text(payload.get(name)) for name in ("iss", "idp_id", "sub"))
    return Claims(issuer, idp_id, subject, life.issued_at, life.expires_at)


def _payload(token: str) -> dict[str, Any]:
    parts = token.split(".")
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() else ""
