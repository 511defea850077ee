"""The end of a process, in order: accept for a while, let sessions finish, end the rest; systemd is kept informed."""

from __future__ import annotations

import time
from typing import Final

import gevent
from gevent.event import Event
from gevent.pool import Group

from pomagent.agent import Agent
from pomagent.deadline import Clock
from pomagent.systemd import Notifier

LOOK_EVERY_S: Final = 0.1
"""Whether the last session is over."""
TELL_EVERY_S: Final = 1.0
EXTEND_EVERY_S, EXTEND_BY_S = 5.0, 15.0
"""systemd is asked for more time in steps: an agent that hangs while it drains is not waited for."""


class Drain:
    """One drain, which a second signal ends at once."""

    def __init__(self, agent: Agent, notifier: Notifier, clock: Clock = time.monotonic) -> None:
        self._agent = agent
        self._notifier = notifier
        self._clock = clock
        self._now = Event()
        self._until = clock()

    def hurry(self) -> None:
        """End everything now. Does not block."""
        self._now.set()
        self._agent.abort()

    @property
    def status(self) -> str:
        """One line, for ``STATUS=``."""
        return f"draining: {self._agent.sessions} sessions left, {max(0, self._until - self._clock()):.0f} s"

    def run(self, accept_for_s: float, timeout_s: float) -> int:
        """Return how many sessions had to be ended. Blocks."""
        self._until = self._clock() + accept_for_s + timeout_s
        telling = Group()
        telling.spawn(self._tell).name = "drain"
        self._now.wait(accept_for_s)
        self._agent.stop_accepting()
        while self._agent.sessions and not self._now.is_set() and self._clock() < self._until:
            gevent.sleep(LOOK_EVERY_S)
        ended = self._agent.finish(0)
        telling.kill()
        return ended

    def _tell(self) -> None:
        """Never returns."""
        told, extend_at = "", 0.0
        while True:
            if self._clock() >= extend_at:
                self._notifier.extend(round(EXTEND_BY_S * 1_000_000))
                extend_at = self._clock() + EXTEND_EVERY_S
            if self.status != told and self._notifier.status(self.status):
                told = self.status
            gevent.sleep(TELL_EVERY_S)
