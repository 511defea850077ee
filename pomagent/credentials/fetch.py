"""Reads the source of one credential, and remembers a failure so that not every dial repeats it."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import SecretStr

from pomagent.credentials.refresh_schedule import is_recent
from pomagent.errors import CredentialError
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.deadline import Clock
from pomagent.settings import Credential

ReadToken = Callable[[Credential], SecretStr]
"""Reads a credential's source without blocking the hub. Blocks its caller. Raises CredentialError."""

RETRY_S = 5.0
"""Seconds for which a failure is remembered: every dial needs the token, and running a command costs time."""
A_BUG = "see greenlet.crashed in the log; reading its source met a bug of the agent"


class TokenFetcher:
    """Fetches the token of one credential. The caller makes sure that only one fetch runs at a time."""

    def __init__(self, read: ReadToken, log: Logger, clock: Clock) -> None:
        self._read = read
        self._log = log
        self._clock = clock
        self.problem = ""
        """Why the last read failed, or empty if it succeeded."""
        self.failed_at = float("-inf")
        self.count = 0
        """Completed reads, successful or not."""

    def fetch(self, credential: Credential) -> SecretStr:
        """Return the token that the source has now. Blocks. Raises CredentialError, at once after a recent failure."""
        if self.problem and is_recent(self.failed_at, RETRY_S, self._clock()):
            raise CredentialError(self.problem)
        try:
            token = self._read(credential)
        except CredentialError as error:
            if str(error) != self.problem:  # logged once: a client that waits for a login retries again and again
                self._log.error(events.CREDENTIAL_REJECTED, error=str(error))
            self._failed(str(error))
            raise
        except Exception:  # a bug must not be met again by every dial
            self._failed(A_BUG)
            raise
        self.count += 1
        self.problem = ""
        return token

    def forget_problem(self) -> None:
        """Clear the problem, because a token came from elsewhere."""
        self.problem = ""

    def forget_failure(self) -> None:
        """Let the next fetch read the source even if it has just failed."""
        self.failed_at = float("-inf")

    def _failed(self, problem: str) -> None:
        self.count += 1
        self.problem, self.failed_at = problem, self._clock()
