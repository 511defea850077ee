"""Feeds systemd's watchdog while the hub runs and every accept loop accepts.

A slow gateway or an empty pool is no reason to restart: sessions go on, and routes recover by themselves. An accept
loop that is gone or stuck is one, because its port takes connections and serves none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gevent

from pomagent.listeners.listener import Listener
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.sd_notify import Notifier


class Watchdog:
    """Checks the accept loops in a greenlet, which gets no turn if the hub is stuck."""

    def __init__(self, notifier: Notifier, find_stuck: Callable[[], Sequence[Listener]], log: Logger) -> None:
        self._notifier = notifier
        self._find_stuck = find_stuck
        self._log = log
        self._is_stuck = False

    def run(self) -> None:
        """Feed the watchdog at its interval while no loop is stuck. Returns at once if there is none, else never."""
        while interval_s := self._notifier.watchdog_interval_s:
            self.look()
            gevent.sleep(interval_s)

    def look(self) -> None:
        """Check once, and feed the watchdog or log the stuck loops. Blocks for a moment."""
        stuck = self._find_stuck()
        if not stuck:
            self._notifier.watchdog()
        elif not self._is_stuck:
            self._log.critical(
                events.LISTENER_BLOCKED, listen=[str(listener.address) for listener in stuck],
                error="no connection is accepted there any more; the watchdog is not fed, so systemd will restart it",
            )  # fmt: skip
        self._is_stuck = bool(stuck)
