"""Refreshes a token before it expires, and warns where only an operator can replace it."""

from __future__ import annotations

import sys
from typing import Protocol

import gevent
from gevent.event import Event
from gevent.pool import Group

from pomagent.credentials.refresh_schedule import (
    WARN_BEFORE_S,
    Life,
    next_warning_at,
    refresh_at,
    retry_at,
    sleep_s,
    warning_step,
)
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.deadline import Clock


class Refreshable(Protocol):
    """A token as its refresher sees it."""

    @property
    def life(self) -> Life: ...
    @property
    def is_refreshable(self) -> bool: ...
    @property
    def obtained_at(self) -> float: ...
    @property
    def failed_at(self) -> float: ...
    def refresh(self) -> None: ...


class TokenRefresher:
    """One greenlet for one token, which sleeps until the next refresh or warning is due."""

    def __init__(self, token: Refreshable, log: Logger, clock: Clock) -> None:
        self._token = token
        self._log = log
        self._clock = clock
        self._warned_step = 0
        self._changed = Event()
        self._group = Group()

    def start(self, name: str) -> None:
        """Start the greenlet under the given name."""
        self._group.spawn(self._run).name = name

    def close(self) -> None:
        """End the greenlet. Does not block."""
        self._group.kill(block=False)

    def token_changed(self) -> None:
        """Start over with another token. Does not block."""
        self._warned_step = 0
        self._changed.set()

    def warn(self) -> None:
        """Log each step of ``WARN_BEFORE_S`` once, when it is reached. Does not block."""
        step = warning_step(self._token.life, self._clock())
        if step > self._warned_step:
            log = self._log.error if step == len(WARN_BEFORE_S) else self._log.warning
            log(events.CREDENTIAL_EXPIRING, expires_in_ms=expires_in_ms(self._token.life, self._clock()))
        self._warned_step = step

    @property
    def due_at(self) -> float | None:
        """When to fetch the next token, or None if that is never."""
        if not self._token.is_refreshable:
            return None
        planned_at = refresh_at(self._token.life, self._token.obtained_at)
        return retry_at(planned_at, self._token.failed_at, self._clock())

    @property
    def is_due(self) -> bool:
        """Whether it is time to fetch the next token."""
        at = self.due_at
        return at is not None and self._clock() >= at

    def _run(self) -> None:
        while True:
            self._changed.clear()
            self.warn()
            now = self._clock()
            self._changed.wait(sleep_s((next_warning_at(self._token.life, now), self.due_at), now))
            try:
                if self.is_due:
                    self._token.refresh()
            except Exception:  # noqa: BLE001 - the crash boundary of this greenlet: a bug costs one refresh, not all
                gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())


def expires_in_ms(life: Life, now: float) -> int | None:
    """Return the remaining milliseconds for a log line, or None if the token never expires."""
    left_s = life.left_s(now)
    return None if left_s is None else round(left_s * 1000)
