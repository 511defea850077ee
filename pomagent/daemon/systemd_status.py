"""What systemd is told of a process while it starts and while it serves: that it needs time, and how it is."""

from __future__ import annotations

from collections.abc import Sequence

import gevent

from pomagent.agent import Agent
from pomagent.daemon.drain import EXTEND_BY_S, EXTEND_EVERY_S
from pomagent.daemon.upgrade.old_processes import Predecessors
from pomagent.errors import Problem
from pomagent.reload.reloader import Reloader
from pomagent.runtime.sd_notify import Notifier

STATUS_EVERY_S = 5.0
START_STEPS = 60
"""How often a start asks systemd for more time: for five minutes in all."""


class SystemdStatus:
    """One line for ``systemctl status``, and the time that a start takes."""

    def __init__(self, agent: Agent, reloader: Reloader, predecessors: Predecessors, notifier: Notifier) -> None:
        self._agent = agent
        self._reloader = reloader
        self._predecessors = predecessors
        self._notifier = notifier

    def ask_for_time(self) -> None:
        """For a start with very many routes; one that hangs is ended by systemd all the same. Blocks."""
        for _ in range(START_STEPS):
            self._notifier.extend(round(EXTEND_BY_S * 1_000_000))
            gevent.sleep(EXTEND_EVERY_S)

    @property
    def line(self) -> str:
        """What runs, what an old process still serves, and whether the files say something else that cannot run."""
        last = self._reloader.last
        old = f"; {self._predecessors.sessions} sessions in old processes" if self._predecessors.count else ""
        wrong = f"; {rejected(last.problems)}" if last is not None and last.result == "rejected" else ""
        return f"{self._agent.status()}{old}{wrong}"

    def tell(self) -> None:
        """Now, whether or not anything is new."""
        self._notifier.status(self.line)

    def run(self) -> None:
        """Tell whatever is new. Returns only if nobody hears it, and then at once."""
        told = ""
        while self._notifier.is_heard:
            line = self.line
            if line != told:
                self._notifier.status(line)
                told = line
            gevent.sleep(STATUS_EVERY_S)


def rejected(problems: Sequence[Problem]) -> str:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"configuration rejected: {problems[0]}{more}"
