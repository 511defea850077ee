"""From the wish for a new process to the end of this one: who may ask, and what a stop in between means."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import gevent
from gevent.pool import Group

from pomagent.admin.control.server import Declined
from pomagent.admin.json_object import JsonObject
from pomagent.agent import Agent
from pomagent.daemon.drain import Drain
from pomagent.daemon.upgrade.retirement import Retirement
from pomagent.daemon.upgrade.upgrade import Upgrade
from pomagent.reload.reloader import Reloader

SIGNAL = "upgrade"
"""What this process is said to stop for, in the place of a signal's name."""


class Succession:
    """The upgrades of one process, of which the last one ends it."""

    def __init__(
        self, upgrade: Upgrade, agent: Agent, reloader: Reloader, drain: Drain, group: Group,
        stop: Callable[[str], object], is_stopping: Callable[[], bool],
    ) -> None:  # fmt: skip
        """``group``: what a stop ends. ``stop`` begins one, unless one has begun before."""
        self._upgrade = upgrade
        self._agent = agent
        self._reloader = reloader
        self._drain = drain
        self._group = group
        self._stop = stop
        self._is_stopping = is_stopping
        self._limit_s: float | None = None

    @property
    def has_happened(self) -> bool:
        """Whether another process is the main one."""
        return self._upgrade.successor is not None

    def when_signalled(self) -> None:
        with suppress(Declined):
            self._upgrade.guarding(self.when_asked)({})

    def when_asked(self, asked: JsonObject) -> JsonObject:
        """In a greenlet that a stop ends, like a reload. Blocks. Raises Declined."""
        settings = self._reloader.current
        assert settings is not None
        if not self._is_stopping():
            limit_s = settings.drain.timeout_s if asked.get("drain") is True else None
            outcome: JsonObject | gevent.GreenletExit = self._group.spawn(self._replace, limit_s).get()
            if not isinstance(outcome, gevent.GreenletExit):
                return outcome
        raise Declined("the agent is stopping and upgrades no more")

    def _replace(self, limit_s: float | None) -> JsonObject:
        """Upgrade; after it, the sessions here may last ``limit_s``, or as long as they like."""
        outcome = self._upgrade.run()
        if self.has_happened:
            self._limit_s = limit_s
            self._stop(SIGNAL)
        return outcome

    def let_go(self, signalled: str) -> None:
        """Another process serves now; ``signalled``: what this one stops for. Does not block."""
        assert self._upgrade.successor is not None
        if signalled != SIGNAL:  # a stop that came meanwhile was meant for the main process
            self._upgrade.successor.signal(signal.SIGTERM)
        self._upgrade.successor.let_be()

    def finish(self, close: Callable[[int], int]) -> int:
        """Finish the sessions that began here, then ``close``, told how many had to be ended. Blocks.

        The other process, which may be about to stop as well, waits for the end of both.
        """
        assert self._upgrade.successor is not None
        with Retirement(self._upgrade.successor.channel, self._agent, self._drain):
            return close(self._drain.run(partial(self._agent.stop_accepting, to_successor=True), 0, self._limit_s))
