"""The tokens of all credentials in use: one per credential, however many routes share it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from pydantic import SecretStr

from pomagent.credentials.fetch import ReadToken
from pomagent.credentials.token import Token
from pomagent.log.logger import Logger
from pomagent.settings import Credential


class Tokens:
    """Creates a credential's token when a route first needs it, and closes it with the last route."""

    def __init__(self, read: ReadToken, log: Logger, on_change: Callable[[Credential], None] = lambda _: None) -> None:
        """``on_change`` is called when another token replaces one that was in use. It must not block."""
        self._read = read
        self._log = log
        self._on_change = on_change
        self._tokens: dict[Credential, Token] = {}

    def keep_only(self, credentials: Collection[Credential | None]) -> None:
        """Close the tokens of every other credential. Does not block.

        A credential of which only ``recheck_s`` has changed keeps its token.
        """
        for old in [credential for credential in self._tokens if credential not in credentials]:
            token = self._tokens.pop(old)
            successor = next((new for new in credentials if new and replace(new, recheck_s=old.recheck_s) == old), None)
            if successor is None:
                token.close()
            else:
                token.credential, self._tokens[successor] = successor, token

    def of(self, credential: Credential) -> Token:
        """Return the credential's token, which starts with the first call."""
        if credential not in self._tokens:
            token = self._tokens[credential] = Token(credential, self._read, self._log, self._on_change)
            token.start()
        return self._tokens[credential]

    def value_of(self, credential: Credential) -> SecretStr | None:
        """Return what is presented for a credential now. None before its first token."""
        token = self._tokens.get(credential)
        return token.value if token else None

    @property
    def in_use(self) -> list[Token]:
        """All tokens, in no order."""
        return list(self._tokens.values())

    def retry(self, credentials: Collection[Credential | None]) -> None:
        """Forget the failures of these credentials' sources. Does not block."""
        for credential in credentials:
            if credential in self._tokens:
                self._tokens[credential].retry()

    def close(self) -> None:
        """Stop refreshing all tokens. Does not block."""
        for token in self._tokens.values():
            token.close()
