"""Checks that the files of the agent's Unix sockets are still there, because nothing else notices a removed one."""

from __future__ import annotations

import sys
from collections.abc import Callable

import gevent

from pomagent.reload.watcher import POLL_INTERVAL_S


class SocketFiles:
    """Calls ``mend`` at the interval of the poll that makes reloads certain."""

    def __init__(self, mend: Callable[[], None], sleep: Callable[[float], object] = gevent.sleep) -> None:
        self._mend = mend
        self._sleep = sleep

    def run(self) -> None:
        """Check again and again. Never returns."""
        while True:
            self._sleep(POLL_INTERVAL_S)
            try:
                self._mend()
            except Exception:  # noqa: BLE001 - the crash boundary of this greenlet: the next check mends what this one did not
                gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())
