"""The current token of a credential, shared by its routes. Only another token replaces it, never an error."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from gevent.lock import BoundedSemaphore
from gevent.pool import Group
from pydantic import SecretStr

from pomagent.credentials.fetch import ReadToken, TokenFetcher
from pomagent.credentials.refresh import TokenRefresher, expires_in_ms
from pomagent.credentials.refresh_schedule import MIN_REFRESH_PAUSE_S, Life, is_recent, life_of
from pomagent.errors import CredentialError
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.deadline import Clock
from pomagent.settings import Credential


class Token:
    """One credential at work. It is fetched on first use, before it expires, and once after a gateway's refusal."""

    def __init__(
        self, credential: Credential, read: ReadToken, log: Logger,
        on_change: Callable[[Credential], None] = lambda _: None, clock: Clock = time.time,
    ) -> None:  # fmt: skip
        """``on_change`` is called when another token has replaced one that was in use. It must not block."""
        log = log.bind(credential=credential.name, source=credential.source)
        self.credential = credential
        self._log = log
        self._on_change = on_change
        self._clock = clock
        self._fetching = BoundedSemaphore(1)
        self._looking = Group()
        self._fetcher = TokenFetcher(read, log, clock)
        self.refresher = TokenRefresher(self, log, clock)
        self.value = credential.token
        self.obtained_at = clock()

    @property
    def life(self) -> Life:
        return life_of(self.value.get_secret_value()) if self.value else Life()

    @property
    def problem(self) -> str:
        """Why the source could not be read last, or empty if it could."""
        return self._fetcher.problem

    @property
    def failed_at(self) -> float:
        """When the source could last not be read."""
        return self._fetcher.failed_at

    @property
    def is_refreshable(self) -> bool:
        """Whether the source can issue another token by itself."""
        return self.credential.source == "command" and self.value is not None

    def start(self) -> None:
        """Start refreshing the token and warning of its expiry."""
        self.refresher.start(f"credential {self.credential.name}")
        self._look_for_login()

    def close(self) -> None:
        self.refresher.close()
        self._looking.kill(block=False)

    def drop(self) -> None:
        """Stop using the token: its login was forgotten. Does not block."""
        self.value = None
        self._look_for_login()

    def obtain(self) -> SecretStr | None:
        """Return the token, and fetch it first if there is none yet. Blocks. Raises CredentialError.

        A login that a refusal has to start first (``anonymous_first``) is not fetched here.
        """
        if self.value is None and not self.credential.anonymous_first:
            with self._fetching:
                if self.value is None:
                    self._fetch()
        return self.value

    def _look_for_login(self) -> None:
        """Read the stored login before the first dial, so that a route without one is known not to be ready."""
        if self.credential.source == "login" and self.value is None and not self.credential.anonymous_first:
            self._looking.spawn(self._obtain_if_possible).name = f"credential {self.credential.name}: stored login"

    def _obtain_if_possible(self) -> None:
        with suppress(CredentialError):  # logged, and kept as the problem
            self.obtain()

    def reread(self, refused: SecretStr | None) -> bool:
        """Return whether there is another token than the ``refused`` one. Blocks. Concurrent callers share one read.

        A source that cannot be read leaves the token as it is. A source that was read a moment ago is not read again: a
        fresh token that is refused shows that no other will do.
        """
        count = self._fetcher.count
        with self._fetching:
            if self.value != refused:
                return True
            if self._fetcher.count != count:
                return False  # another caller has just read the same token
            if is_recent(self.obtained_at, self._reread_pause_s, self._clock()):
                return False
            try:
                self._fetch()
            except CredentialError:
                return False
            return self.value != refused

    def refresh(self) -> None:
        """Fetch the next token. If that fails, keep the present one. Blocks."""
        with self._fetching:
            try:
                self._fetch()
            except CredentialError:
                return  # logged. The old token is still the best there is

    def replace(self, fresh: SecretStr) -> None:
        """Take a token from elsewhere, such as a login. Does not block."""
        is_other, was_used = fresh != self.value, self.value is not None
        self.value, self.obtained_at = fresh, self._clock()
        self._fetcher.forget_problem()
        self.refresher.token_changed()
        if is_other:
            self._log.info(events.CREDENTIAL_REFRESHED, expires_in_ms=expires_in_ms(self.life, self._clock()))
            if was_used:
                self._on_change(self.credential)

    def retry(self) -> None:
        """Let the next dial read the source even if it has just failed. Does not block."""
        self._fetcher.forget_failure()

    def _fetch(self) -> None:
        """Read the source and adopt its token. Blocks. Raises CredentialError."""
        fresh = self._fetcher.fetch(self.credential)
        if fresh == self.value:
            self.obtained_at = self._clock()
        else:
            self.replace(fresh)

    @property
    def _reread_pause_s(self) -> float:
        return MIN_REFRESH_PAUSE_S if self.credential.source == "command" else 0.0
