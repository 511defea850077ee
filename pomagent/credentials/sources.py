"""Reads tokens from files, variables and commands.

Files and commands have separate threads, so that a hanging command does not delay a file.
"""

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
"""Maximum files read at a time."""
COMMANDS = 4
"""Maximum commands run at a time. Credentials are few, and each runs its command once at a time."""


class TokenSources:
    """Reads the sources of all credentials of one process."""

    def __init__(self, environ: Mapping[str, str], log: Logger) -> None:
        self._environ = environ
        self._log = log
        self._files = Threads(FILE_READERS)
        self._commands = Threads(COMMANDS)

    def read(self, credential: Credential) -> SecretStr:
        """Return the token that its source has now. Blocks its greenlet, not the hub. Raises CredentialError."""
        if credential.source != "command":
            return self._files.call(read_token, credential, self._environ)
        output = self._commands.call(run_command, credential, self._environ)
        if output.stderr:
            self._log.warning(events.CREDENTIAL_COMMENTED, credential=credential.name, said=output.stderr)
        return output.token
