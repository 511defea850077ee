"""Accepts or declines requests for an upgrade, and ends this process after a successful one."""

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
from pomagent.daemon.stop_request import StopRequest
from pomagent.daemon.upgrade.retirement import Retirement
from pomagent.daemon.upgrade.upgrade import Upgrade
from pomagent.reload.reloader import Reloader

UPGRADE = "upgrade"
"""The cause of a stop after an upgrade, in the place of a signal's name."""


class UpgradeRequests:
    """Runs the upgrades of one process. The first one that succeeds ends it."""

    def __init__(
        self, upgrade: Upgrade, agent: Agent, reloader: Reloader, drain: Drain, until_stop: Group, stop: StopRequest
    ) -> None:
        """``until_stop`` has the greenlets that a stop ends."""
        self._upgrade = upgrade
        self._agent = agent
        self._reloader = reloader
        self._drain = drain
        self._until_stop = until_stop
        self._stop = stop
        self._limit_s: float | None = None

    @property
    def is_replaced(self) -> bool:
        """Whether another process is the main one."""
        return self._upgrade.new_process is not None

    def on_signal(self) -> None:
        """Upgrade on SIGUSR2. Blocks."""
        with suppress(Declined):
            self._upgrade.guarding(self.on_command)({})

    def on_command(self, request: JsonObject) -> JsonObject:
        """Upgrade for the ``upgrade`` command, in a greenlet that a stop ends. Blocks. Raises Declined."""
        settings = self._reloader.current
        assert settings is not None
        if not self._stop.is_made:
            limit_s = settings.drain.timeout_s if request.get("drain") is True else None
            outcome: JsonObject | gevent.GreenletExit = self._until_stop.spawn(self._replace, limit_s).get()
            if not isinstance(outcome, gevent.GreenletExit):
                return outcome
        raise Declined("the agent is stopping and no longer upgrades")

    def _replace(self, limit_s: float | None) -> JsonObject:
        """Upgrade. After it, the sessions of this process may last for ``limit_s``, or without limit if it is None."""
        outcome = self._upgrade.run()
        if self.is_replaced:
            self._limit_s = limit_s
            self._stop.make(UPGRADE)
        return outcome

    def release_new_process(self) -> None:
        """Leave the new process to itself. Pass on a signal that arrived during the upgrade. Does not block."""
        new = self._upgrade.new_process
        assert new is not None
        if self._stop.cause != UPGRADE:  # the stop was meant for the main process
            new.signal(signal.SIGTERM)
        new.release()

    def finish(self, close: Callable[[int], int]) -> int:
        """Finish the sessions of this process, then return ``close(number of sessions that had to be ended)``. Blocks.

        The new process, which may be about to stop as well, waits until this one has ended.
        """
        new = self._upgrade.new_process
        assert new is not None
        with Retirement(new.channel, self._agent, self._drain):
            return close(self._drain.run(partial(self._agent.stop_accepting, to_successor=True), 0, self._limit_s))
