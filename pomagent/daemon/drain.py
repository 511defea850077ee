"""The end of a process, in order: accept for a while, let sessions finish, end the rest; systemd is kept informed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import gevent
from gevent.event import Event
from gevent.pool import Group

from pomagent.agent import Agent
from pomagent.daemon.upgrade.old_processes import Predecessors
from pomagent.runtime.deadline import Clock
from pomagent.runtime.sd_notify import Notifier

LOOK_EVERY_S: Final = 0.1
"""Whether the last session is over."""
TELL_EVERY_S: Final = 1.0
EXTEND_EVERY_S, EXTEND_BY_S = 5.0, 15.0
"""systemd is asked for more time in steps: an agent that hangs while it drains is not waited for."""
OTHERS_GRACE_S: Final = 8.0
"""For old processes to end what is left of their sessions, after the limit that they share with us."""


class Drain:
    """One drain, which others may shorten while it goes on."""

    def __init__(
        self, agent: Agent, predecessors: Predecessors, notifier: Notifier, clock: Clock = time.monotonic
    ) -> None:
        self._agent = agent
        self._predecessors = predecessors
        self._notifier = notifier
        self._clock = clock
        self._now = Event()
        self._until = float("inf")
        self.is_limited = False
        """Whether it ends by itself at some time."""

    def limit(self, timeout_s: float) -> None:
        """The sessions, those of old processes too, may last so long from now, and no longer. Does not block."""
        self._until = min(self._until, self._clock() + timeout_s)
        self.is_limited = True
        self._predecessors.stop(timeout_s)

    def hurry(self) -> None:
        """End everything now. Does not block."""
        self._now.set()
        self._until = min(self._until, self._clock())
        self._agent.abort()
        self._predecessors.abort()

    @property
    def status(self) -> str:
        """One line, for ``STATUS=``."""
        left = f"draining: {self._agent.session_count + self._predecessors.sessions} sessions left"
        return f"{left}, {max(0, self._until - self._clock()):.0f} s" if self.is_limited else left

    def run(self, stop_accepting: Callable[[], None], accept_for_s: float, timeout_s: float | None) -> int:
        """Drain, without a limit if ``timeout_s`` is None, and return how many sessions had to be ended. Blocks."""
        telling = Group()
        telling.spawn(self._tell).name = "drain"
        if timeout_s is not None:
            self.limit(accept_for_s + timeout_s)
        self._now.wait(accept_for_s)
        stop_accepting()
        while self._agent.session_count and not self._now.is_set() and self._clock() < self._until:
            gevent.sleep(LOOK_EVERY_S)
        ended = self._agent.finish(0)
        self._wait_for_others()
        telling.kill()
        return ended

    def _wait_for_others(self) -> None:
        """Whoever is the service's main process stays until the last: systemd kills what is left at its end."""
        while self._predecessors.count and self._clock() < self._until + OTHERS_GRACE_S:
            gevent.sleep(LOOK_EVERY_S)

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
