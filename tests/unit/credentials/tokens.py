"""Tokens and a source for tests of credentials."""

from __future__ import annotations

import base64
import json

from pydantic import SecretStr

from pomagent.settings import Credential

NEW = SecretStr("eyJ-new-S3CR3T")
MINT = Credential("ops", "command", command=("mint",))


def jwt(expires_at: float, name: str = "a") -> SecretStr:
    body = base64.urlsafe_b64encode(json.dumps({"exp": expires_at, "jti": name}).encode()).decode().rstrip("=")
    return SecretStr(f"header.{body}.signature")


class Mint:
    """A source that returns the test's results one after the other, and raises those that are errors."""

    def __init__(self, *results: SecretStr | Exception) -> None:
        self.results = list(results)
        self.read_count = 0

    def read(self, _: Credential) -> SecretStr:
        self.read_count += 1
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result
