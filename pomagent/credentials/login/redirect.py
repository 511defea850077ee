"""The address to which a login's browser comes back, and the token that it brings. Pure."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from pomagent.config.secrets import MAX_TOKEN_BYTES, check_token
from pomagent.errors import CredentialError

LISTEN_HOST = "127.0.0.1"
"""The literal: "localhost" may be another address in the browser than here (wire contract §4.1)."""
NONCE_BYTES = 32
PARAMETER = "pomerium_jwt"


class NotTheCallback(Exception):
    """A request, or a pasted address, that brings no token of this login."""


class Forged(NotTheCallback):
    """It brings a token, but not this login's nonce: somebody else's session is to be smuggled in."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """One login's own address; nobody can guess the nonce."""

    port: int
    nonce: str = field(repr=False)

    @property
    def uri(self) -> str:
        return f"http://{LISTEN_HOST}:{self.port}{self.path}"

    @property
    def path(self) -> str:
        return f"/cb/{self.nonce}"

    def token_in(self, target: str) -> SecretStr:
        """The token in a request's target or in a pasted address. Raises NotTheCallback."""
        try:
            parts = urlsplit(target)
            values = parse_qs(parts.query, max_num_fields=32).get(PARAMETER, [])
        except ValueError:
            raise NotTheCallback("not an address") from None
        is_ours = hmac.compare_digest(parts.path.encode(errors="replace"), self.path.encode())
        if not is_ours:
            raise (Forged if values else NotTheCallback)("not the address of this login")
        if len(values) != 1:
            raise NotTheCallback(f"it has no {PARAMETER}" if not values else f"it has more than one {PARAMETER}")
        if len(values[0]) > MAX_TOKEN_BYTES:
            raise NotTheCallback(f"its {PARAMETER} is longer than {MAX_TOKEN_BYTES} bytes")
        try:
            return check_token(values[0], PARAMETER)
        except CredentialError as error:
            raise NotTheCallback(str(error)) from None
