"""Ends a process in order: accept for a while, let sessions finish, end the rest. Keeps systemd informed meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import gevent
from gevent.event import Event
from gevent.pool import Group

from pomagent.agent import Agent
from pomagent.daemon.upgrade.old_processes import OldProcesses
from pomagent.runtime.deadline import Clock
from pomagent.runtime.sd_notify import Notifier

LOOK_EVERY_S: Final = 0.1
"""Seconds between two checks whether sessions are left."""
REPORT_EVERY_S: Final = 1.0
"""Seconds between two updates of the status line."""
EXTEND_EVERY_S, EXTEND_BY_S = 5.0, 15.0
"""Interval and length of the extensions of systemd's timeout. Short ones, so that an agent that hangs is ended soon."""
OTHERS_GRACE_S: Final = 8.0
"""Seconds that old processes have to end their last sessions, after the limit that they share with this one."""


class Drain:
    """One drain, which may be shortened while it runs."""

    def __init__(
        self, agent: Agent, old_processes: OldProcesses, notifier: Notifier, clock: Clock = time.monotonic
    ) -> None:
        self._agent = agent
        self._old_processes = old_processes
        self._notifier = notifier
        self._clock = clock
        self._hurried = Event()
        self._until = float("inf")
        self.is_limited = False
        """Whether the drain has a time limit."""

    def limit(self, timeout_s: float) -> None:
        """End all sessions after ``timeout_s``, those of old processes included. Does not block."""
        self._until = min(self._until, self._clock() + timeout_s)
        self.is_limited = True
        self._old_processes.stop(timeout_s)

    def hurry(self) -> None:
        """End all sessions now. Does not block."""
        self._hurried.set()
        self._until = min(self._until, self._clock())
        self._agent.abort()
        self._old_processes.abort()

    @property
    def status(self) -> str:
        """The line for ``STATUS=``."""
        left = f"draining: {self._agent.session_count + self._old_processes.session_count} sessions left"
        return f"{left}, {max(0, self._until - self._clock()):.0f} s" if self.is_limited else left

    def run(self, stop_accepting: Callable[[], None], accept_for_s: float, timeout_s: float | None) -> int:
        """Drain, without a time limit if ``timeout_s`` is None. Return how many sessions had to be ended. Blocks."""
        reporting = Group()
        reporting.spawn(self._report).name = "drain"
        if timeout_s is not None:
            self.limit(accept_for_s + timeout_s)
        self._hurried.wait(accept_for_s)
        stop_accepting()
        while self._agent.session_count and not self._hurried.is_set() and self._clock() < self._until:
            gevent.sleep(LOOK_EVERY_S)
        ended_count = self._agent.finish(0)
        self._wait_for_old_processes()
        reporting.kill()
        return ended_count

    def _wait_for_old_processes(self) -> None:
        """The main process exits last, because systemd then kills what is left of the service."""
        while self._old_processes.count and self._clock() < self._until + OTHERS_GRACE_S:
            gevent.sleep(LOOK_EVERY_S)

    def _report(self) -> None:
        """Extend systemd's timeout and update the status line. Never returns."""
        sent, extend_at = "", 0.0
        while True:
            if self._clock() >= extend_at:
                self._notifier.extend(round(EXTEND_BY_S * 1_000_000))
                extend_at = self._clock() + EXTEND_EVERY_S
            if self.status != sent and self._notifier.status(self.status):
                sent = self.status
            gevent.sleep(REPORT_EVERY_S)
