"""The token of a credential as it is now: shared by its routes, read anew once when a gateway refuses it."""

from __future__ import annotations

from collections.abc import Callable

from gevent.lock import BoundedSemaphore
from pydantic import SecretStr

from pomagent import events
from pomagent.errors import CredentialError
from pomagent.log import Logger
from pomagent.settings import Credential

ReadToken = Callable[[Credential], SecretStr]
"""Reads a credential's source without blocking the hub. Blocks its caller. Raises CredentialError."""


class Token:
    """One credential at work. Only a gateway's refusal makes it read its source again between reloads."""

    def __init__(self, credential: Credential, read: ReadToken, log: Logger) -> None:
        self.credential = credential
        self._read = read
        self._log = log.bind(credential=credential.name, source=credential.source)
        self._reading = BoundedSemaphore(1)
        self._readings = 0
        """How often the source has been read to the end, whatever it said."""
        self.value = credential.token

    def reread(self, refused: SecretStr | None) -> bool:
        """Whether there is another token now than the ``refused`` one. Blocks; one reading serves all who wait for it.

        A source that cannot be read leaves the token as it is: only a better one replaces it.
        """
        readings = self._readings
        with self._reading:
            if self.value != refused:
                return True
            if self._readings != readings:
                return False
            try:
                fresh = self._read(self.credential)
            except CredentialError as error:
                self._readings += 1
                self._log.error(events.CREDENTIAL_REJECTED, error=str(error))
                return False
            self._readings += 1
            if fresh == refused:
                return False
            self.value = fresh
            self._log.info(events.CREDENTIAL_REFRESHED)
            return True


def header(name: str, scheme: str, token: SecretStr) -> dict[str, str]:
    """The header that carries a token (wire contract §2.1: forms 1, 5 and 6)."""
    secret = token.get_secret_value()
    if scheme == "bearer":
        return {name: f"Bearer {secret}"}
    return {name: secret if name == "x-pomerium-authorization" else f"Pomerium {secret}"}
