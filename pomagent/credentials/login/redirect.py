"""The address to which a login redirects the browser, and the token in it. Pure."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from pomagent.config.secrets import MAX_TOKEN_BYTES, check_token
from pomagent.errors import CredentialError

LISTEN_HOST = "127.0.0.1"
"""Loopback address, as a literal: the browser may resolve "localhost" to another one (wire contract §4.1)."""
NONCE_BYTES = 32
"""Random bytes in the path, so that no other page can guess it."""
PARAMETER = "pomerium_jwt"


class NotTheCallback(Exception):
    """A request or a pasted address has no token of this login."""


class ForgedCallback(NotTheCallback):
    """A request has a token without this login's nonce, or comes from another user: the session may be foreign."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """The redirect address of one login, with an unguessable nonce."""

    port: int
    nonce: str = field(repr=False)

    @property
    def uri(self) -> str:
        return f"http://{LISTEN_HOST}:{self.port}{self.path}"

    @property
    def path(self) -> str:
        return f"/cb/{self.nonce}"

    def token_in(self, target: str) -> SecretStr:
        """Return the token of a request's target or a pasted address. Raises NotTheCallback."""
        try:
            parts = urlsplit(target)
            values = parse_qs(parts.query, max_num_fields=32).get(PARAMETER, [])
        except ValueError:
            raise NotTheCallback("not an address") from None
        is_ours = hmac.compare_digest(parts.path.encode(errors="replace"), self.path.encode())
        if not is_ours:
            raise (ForgedCallback if values else NotTheCallback)("not the address of this login")
        if len(values) != 1:
            raise NotTheCallback(f"it has no {PARAMETER}" if not values else f"it has more than one {PARAMETER}")
        if len(values[0]) > MAX_TOKEN_BYTES:
            raise NotTheCallback(f"its {PARAMETER} is longer than {MAX_TOKEN_BYTES} bytes")
        try:
            return check_token(values[0], PARAMETER)
        except CredentialError as error:
            raise NotTheCallback(str(error)) from None
