"""Tells systemd's watchdog that this process is worth keeping: its hub turns, and every accept loop accepts.

Neither a gateway that is slow nor a pool that keeps nothing warm is a reason to restart: sessions go on, and routes
heal by themselves. An accept loop that is gone or stuck leaves a port that takes connections and serves none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gevent

from pomagent.listeners.listener import Listener
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.sd_notify import Notifier


class Watchdog:
    """Asks the accept loops again and again, in a greenlet: if the hub is stuck, so is this."""

    def __init__(self, notifier: Notifier, find_stuck: Callable[[], Sequence[Listener]], log: Logger) -> None:
        self._notifier = notifier
        self._find_stuck = find_stuck
        self._log = log
        self._is_told = False

    def run(self) -> None:
        """Feed it as often as it wants, for as long as all is well. Never returns, or at once if there is none."""
        while interval_s := self._notifier.watchdog_interval_s:
            self.look()
            gevent.sleep(interval_s)

    def look(self) -> None:
        """Once. Blocks for a moment."""
        stuck = self._find_stuck()
        if not stuck:
            self._notifier.watchdog()
        elif not self._is_told:
            self._log.critical(
                events.LISTENER_BLOCKED, listen=[str(listener.address) for listener in stuck],
                error="nobody accepts there any more; the watchdog is told nothing, so that systemd restarts the agent",
            )  # fmt: skip
        self._is_told = bool(stuck)
