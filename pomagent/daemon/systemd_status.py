"""Reports start-up progress and status to systemd."""

from __future__ import annotations

from collections.abc import Sequence

import gevent

from pomagent.agent import Agent
from pomagent.daemon.drain import EXTEND_BY_S, EXTEND_EVERY_S
from pomagent.daemon.upgrade.old_processes import OldProcesses
from pomagent.errors import Problem
from pomagent.reload.reloader import Reloader
from pomagent.runtime.sd_notify import Notifier

STATUS_EVERY_S = 5.0
"""Seconds between two looks at the status line."""
START_STEPS = 60
"""Extensions of the start-up timeout that are requested, five minutes in all; systemd then ends a hanging start."""


class SystemdStatus:
    """Extends the start-up timeout and keeps the line of ``systemctl status`` up to date."""

    def __init__(self, agent: Agent, reloader: Reloader, old_processes: OldProcesses, notifier: Notifier) -> None:
        self._agent = agent
        self._reloader = reloader
        self._old_processes = old_processes
        self._notifier = notifier

    def extend_start(self) -> None:
        """Keep extending the start-up timeout, for a start with very many routes. Blocks."""
        for _ in range(START_STEPS):
            self._notifier.extend(round(EXTEND_BY_S * 1_000_000))
            gevent.sleep(EXTEND_EVERY_S)

    @property
    def line(self) -> str:
        """Routes by state, sessions, sessions of old processes, and whether the files were rejected."""
        last = self._reloader.last
        old = f"; {self._old_processes.session_count} sessions in old processes" if self._old_processes.count else ""
        problem = f"; {rejected(last.problems)}" if last is not None and last.result == "rejected" else ""
        return f"{self._agent_line()}{old}{problem}"

    def _agent_line(self) -> str:
        agent, forwarders = self._agent, self._agent.running.current
        states = [forwarder.state for forwarder in forwarders] + ["quarantined"] * len(agent.quarantined)
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
        warm = sum(forwarder.pool.warm_count for forwarder in forwarders)
        return (
            f"{len(states)} routes: {counts}; {agent.session_count} sessions; {warm} warm;"
            f" generation {agent.generation}"
        )

    def send(self) -> None:
        """Send the line now, even if it has not changed."""
        self._notifier.status(self.line)

    def run(self) -> None:
        """Send the line each time that it has changed. Returns at once without a service manager, otherwise never."""
        sent = ""
        while self._notifier.is_heard:
            line = self.line
            if line != sent:
                self._notifier.status(line)
                sent = line
            gevent.sleep(STATUS_EVERY_S)


def rejected(problems: Sequence[Problem]) -> str:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"configuration rejected: {problems[0]}{more}"
