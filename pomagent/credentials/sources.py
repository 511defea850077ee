"""Reads tokens from where they come, each kind in threads of its own: a hanging command delays no file."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import SecretStr

from pomagent.config.secrets import read_token
from pomagent.credentials.command import run_command
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.threads import Threads
from pomagent.settings import Credential

FILE_READERS = 2
COMMANDS = 4
"""At a time: credentials are few, and each has one run at a time."""


class TokenSources:
    """All the sources of one process."""

    def __init__(self, environ: Mapping[str, str], log: Logger) -> None:
        self._environ = environ
        self._log = log
        self._files = Threads(FILE_READERS)
        self._commands = Threads(COMMANDS)

    def read(self, credential: Credential) -> SecretStr:
        """The token as its source has it now. Blocks its greenlet, not the hub. Raises CredentialError."""
        if credential.source != "command":
            return self._files.call(read_token, credential, self._environ)
        printed = self._commands.call(run_command, credential, self._environ)
        if printed.said:
            self._log.warning(events.CREDENTIAL_COMMENTED, credential=credential.name, said=printed.said)
        return printed.token
