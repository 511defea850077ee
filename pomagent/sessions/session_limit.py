"""Limits concurrent sessions. Waiting clients are admitted in order of arrival."""

from __future__ import annotations

from collections import deque

from gevent import Timeout
from gevent.event import Event

MAX_WAITING = 1024
"""Maximum clients that wait for one limit. Further ones are refused at once."""


class SessionLimit:
    """Admits at most ``limit`` sessions at a time. Lowering the limit ends no session."""

    def __init__(self, limit: int, setting: str = "max_sessions") -> None:
        """``setting`` is the limit's name in agent.toml."""
        self._limit = limit
        self._setting = setting
        self._waiting: deque[Event] = deque()
        self.admitted_count = 0
        self.is_overrun = False
        """Whether a client was refused, and the limit has been reached ever since."""

    @property
    def why_full(self) -> str:
        """What the operator can do once the limit is reached, in a sentence."""
        return f"{self._setting} = {self._limit} is reached; raise it, or list the sessions: pomagent sessions"

    def acquire(self, timeout_s: float) -> bool:
        """Admit a session, waiting if necessary, or return False after the timeout. Blocks."""
        is_admitted = self._acquire(timeout_s)
        self.is_overrun = self.is_overrun or not is_admitted
        return is_admitted

    def _acquire(self, timeout_s: float) -> bool:
        if self.admitted_count < self._limit and not self._waiting:
            self.admitted_count += 1
            return True
        if len(self._waiting) >= MAX_WAITING:
            return False
        admission = Event()
        self._waiting.append(admission)
        try:
            with Timeout(timeout_s, False):
                admission.wait()
        except BaseException:
            self._cancel(admission)
            raise
        if not admission.is_set():
            self._cancel(admission)
        return bool(admission.is_set())

    def release(self) -> None:
        """Count a session as over and admit the next waiting client."""
        self.admitted_count -= 1
        self._admit_next()

    def resize(self, limit: int) -> None:
        self._limit = limit
        self._admit_next()

    def _cancel(self, admission: Event) -> None:
        if admission.is_set():
            self.release()
        else:
            self._waiting.remove(admission)

    def _admit_next(self) -> None:
        while self._waiting and self.admitted_count < self._limit:
            self.admitted_count += 1
            self._waiting.popleft().set()
        if self.admitted_count < self._limit:
            self.is_overrun = False
