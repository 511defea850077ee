"""The token of a credential as it is now, shared by its routes; only a better token ever replaces it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.pool import Group
from pydantic import SecretStr

from pomagent.credentials.expiry import LADDER_S, LEAST_WAIT_S, Life, life_of, next_step_at, refresh_at, step_of
from pomagent.errors import CredentialError
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.deadline import Clock
from pomagent.settings import Credential

ReadToken = Callable[[Credential], SecretStr]
"""Reads a credential's source without blocking the hub. Blocks its caller. Raises CredentialError."""

RETRY_S = 5.0
"""After a source that failed: every dial asks for its token, and a command is not free."""
A_BUG = "its source met a bug of the agent; see greenlet.crashed in the log"


class Token:
    """One credential at work: read when it is first needed, before it ends, and once after a gateway's refusal."""

    def __init__(
        self, credential: Credential, read: ReadToken, log: Logger,
        on_change: Callable[[Credential], None] = lambda _: None, clock: Clock = time.time,
    ) -> None:  # fmt: skip
        """``on_change`` is told when another token has taken the place of one that was in use; it must not block."""
        self.credential = credential
        self._read = read
        self._log = log.bind(credential=credential.name, source=credential.source)
        self._on_change = on_change
        self._clock = clock
        self._reading = BoundedSemaphore(1)
        self._readings = 0
        """How often the source has been read to the end, whatever it said."""
        self._changed = Event()
        self._group = Group()
        self._got_at = clock()
        self._failed_at = float("-inf")
        self._told_step = 0
        self.value = credential.token
        self.problem = ""
        """Why the source could not be read last; empty if it could."""

    @property
    def life(self) -> Life:
        return life_of(self.value.get_secret_value()) if self.value else Life()

    def start(self) -> None:
        """Begin to refresh the token and to warn of its end."""
        self._group.spawn(self._keep).name = f"credential {self.credential.name}"

    def close(self) -> None:
        self._group.kill(block=False)

    def obtain(self) -> SecretStr | None:
        """The token, asked for first if there is none yet and that troubles nobody. Blocks. Raises CredentialError."""
        if self.value is None and not self.credential.anonymous_first:
            with self._reading:
                if self.value is None:
                    self._fetch()
        return self.value

    def reread(self, refused: SecretStr | None) -> bool:
        """Whether there is another token now than the ``refused`` one. Blocks; one reading serves all who wait for it.

        A source that cannot be read leaves the token as it is. One that was read a moment ago is not asked again: a
        fresh token that is refused shows that no other will do.
        """
        readings = self._readings
        with self._reading:
            if self.value != refused:
                return True
            if self._readings != readings:
                return False  # somebody has just found that the source has nothing else
            if self._is_recent(self._got_at, self._least_wait_s):
                return False
            try:
                self._fetch()
            except CredentialError:
                return False
            return self.value != refused

    def replace(self, fresh: SecretStr) -> None:
        """Take a token that somebody brings, such as a login's. Does not block."""
        is_other, was_used = fresh != self.value, self.value is not None
        self.value, self.problem, self._told_step = fresh, "", 0
        self._got_at = self._clock()
        self._changed.set()
        if is_other:
            self._log.info(events.CREDENTIAL_REFRESHED, expires_in_ms=self._expires_in_ms())
            if was_used:
                self._on_change(self.credential)

    def retry(self) -> None:
        """Ask the source at once, when a dial next needs it, even if it has just failed. Does not block."""
        self._failed_at = float("-inf")

    def _is_recent(self, at: float, within_s: float) -> bool:
        """Whether that was so short a while ago; not if it lies ahead, for then the clock has been set back."""
        return 0 <= self._clock() - at < within_s

    @property
    def _least_wait_s(self) -> float:
        return LEAST_WAIT_S if self.credential.source == "command" else 0.0

    def _fetch(self) -> None:
        """Read the source; a failure is remembered for a moment, so that not every dial repeats it."""
        if self.problem and self._is_recent(self._failed_at, RETRY_S):
            raise CredentialError(self.problem)
        try:
            fresh = self._read(self.credential)
            self._readings += 1
        except CredentialError as error:
            self._readings += 1
            if str(error) != self.problem:  # said once: whoever waits for a login asks again and again
                self._log.error(events.CREDENTIAL_REJECTED, error=str(error))
            self.problem, self._failed_at = str(error), self._clock()
            raise
        except Exception:  # a bug must not be met again by every dial
            self._readings += 1
            self.problem, self._failed_at = A_BUG, self._clock()
            raise
        if fresh == self.value:
            self._got_at, self.problem = self._clock(), ""
        else:
            self.replace(fresh)

    # --- its end --------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        while True:
            self._changed.clear()
            self.warn()
            self._changed.wait(self._pause())
            try:
                if self.is_due:
                    self.refresh()
            except Exception:  # noqa: BLE001 - the crash boundary of this greenlet: a bug costs one refresh, not all
                gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())

    def _pause(self) -> float | None:
        now = self._clock()
        moments = [at for at in (next_step_at(self.life, now), self._refresh_at()) if at is not None]
        return min(max(0.1, min(moments) - now), 86_400.0) if moments else None

    def _refresh_at(self) -> float | None:
        if self.credential.source != "command" or self.value is None:
            return None
        at = refresh_at(self.life, self._got_at)
        if at is None or not self._is_recent(self._failed_at, LEAST_WAIT_S):
            return at
        return max(at, self._failed_at + LEAST_WAIT_S)

    @property
    def is_due(self) -> bool:
        """Whether it is time to fetch the next token."""
        at = self._refresh_at()
        return at is not None and self._clock() >= at

    def refresh(self) -> None:
        """Fetch the next token; if that fails, the present one stays. Blocks."""
        with self._reading:
            try:
                self._fetch()
            except CredentialError:
                return  # logged; the old token is still the best there is

    def warn(self) -> None:
        """Log the step of the ladder that the token has reached, once. Does not block."""
        step = step_of(self.life, self._clock())
        if step > self._told_step:
            tell = self._log.error if step == len(LADDER_S) else self._log.warning
            tell(events.CREDENTIAL_EXPIRING, expires_in_ms=self._expires_in_ms())
        self._told_step = step

    def _expires_in_ms(self) -> int | None:
        left = self.life.left_s(self._clock())
        return None if left is None else round(left * 1000)


def header(name: str, scheme: str, token: SecretStr) -> dict[str, str]:
    """The header that carries a token (wire contract §2.1: forms 1, 5 and 6)."""
    secret = token.get_secret_value()
    if scheme == "bearer":
        return {name: f"Bearer {secret}"}
    return {name: secret if name == "x-pomerium-authorization" else f"Pomerium {secret}"}
