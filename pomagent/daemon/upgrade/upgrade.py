"""Replace this process by one of the installed version; until that serves and is the main process, nothing is given up.

The order is the promise: the new process loads, binds and warms up with its accept loops held still; then both accept;
then this one holds still, and systemd learns who is the main process. Whatever fails before that one has confirmed it
ends the new process, and this one accepts again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import gevent

from pomagent import __version__
from pomagent.admin.control.server import BodyHandler, Declined
from pomagent.admin.json_object import JsonObject
from pomagent.agent import Agent
from pomagent.daemon.upgrade.channel import MAX_SOCKETS
from pomagent.daemon.upgrade.new_process import Successor, UpgradeFailed
from pomagent.daemon.upgrade.old_processes import Predecessors
from pomagent.listeners.inherited import Inherited
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.reload.reloader import Reloader
from pomagent.runtime.sd_notify import Notifier

READY_TIMEOUT_S: Final = 30.0
"""For reading, validating, binding and warming up; all steps together take less than a command waits."""
STEP_TIMEOUT_S: Final = 3.0
"""For what only has to be heard and answered."""
LOOK_EVERY_S: Final = 0.02
T = TypeVar("T")


class Upgrade:
    """At most one at a time, and the last one if it succeeds."""

    def __init__(
        self, agent: Agent, reloader: Reloader, notifier: Notifier, predecessors: Predecessors,
        share: Callable[[], list[Inherited]], environ: Mapping[str, str], log: Logger,
    ) -> None:  # fmt: skip
        """``share`` names all sockets on which this process listens."""
        self._agent = agent
        self._reloader = reloader
        self._notifier = notifier
        self._predecessors = predecessors
        self._share = share
        self._environ = environ
        self._log = log
        self._is_under_way = False
        self._is_committing = False
        self.successor: Successor | None = None
        """The main process, once there is another one."""

    def run(self) -> JsonObject:
        """Say what came of it: another main process, or nothing that has changed. Blocks. See ``guarding``."""
        self._is_under_way = True
        self._log.info(events.AGENT_UPGRADING, version=__version__, sessions=self._agent.session_count)
        try:
            new = self._replace()
        except UpgradeFailed as error:
            self._log.error(events.AGENT_UPGRADE_FAILED, error=str(error), problems=error.problems)
            return {"result": "failed", "code": error.code, "error": str(error), "problems": error.problems}
        finally:
            self._is_under_way = False
        account = {"version": new.version, "pid": new.pid, "sessions_left": self._agent.session_count}
        self._log.info(events.AGENT_UPGRADED, **account)
        return {"result": "upgraded", **account}

    def guarding(self, take: BodyHandler) -> BodyHandler:
        """The same, declined by a process that is being replaced: the next one would not know of it."""

        def take_if_it_lasts(asked: JsonObject) -> JsonObject:
            if self._is_under_way or self.successor is not None:
                raise Declined("an upgrade is under way; ask again in a moment")
            return take(asked)

        return take_if_it_lasts

    def wait_for_commit(self) -> None:
        """Whoever wants to end this process waits while it may still become clear who the main process is. Blocks."""
        while self._is_committing:
            gevent.sleep(LOOK_EVERY_S)

    def _replace(self) -> Successor:
        if os.getpid() == 1:
            raise UpgradeFailed("this process is PID 1, and what it runs in ends with it; start another one instead")
        self._reloader.suspend()  # for good if this succeeds: both follow one file, and only one may apply it
        successor: Successor | None = None
        try:
            successor = Successor.start(self._environ)
            self._prepare(successor)
            self._commit(successor)
        except BaseException:
            if successor is not None:
                successor.kill()
                self._agent.listeners.restore_permissions()
            self._agent.listeners.accepting.set()
            self._reloader.resume()
            raise
        return successor

    def _prepare(self, successor: Successor) -> None:
        """Until both accept."""
        for some in _batches(self._share()):
            successor.send("sockets", [each.sock for each in some], names=[each.name for each in some])
        for some_old in _batches(self._predecessors.all):
            channels = [each.channel.sock for each in some_old]
            successor.send("predecessors", channels, processes=[each.document for each in some_old])
        successor.send("begin", **self._account())
        successor.expect("ready", READY_TIMEOUT_S)
        successor.send("serve")
        successor.expect("serving", STEP_TIMEOUT_S)

    def _account(self) -> dict[str, Any]:
        """What the new process should know of this one."""
        return {
            "pid": os.getpid(), "version": __version__, "sessions": self._agent.session_count,
            "quarantined": sorted(self._agent.quarantined), "paused": self._agent.running.paused,
        }  # fmt: skip

    def _commit(self, successor: Successor) -> None:
        """Only here may systemd be told: a process that dies earlier never becomes its main process."""
        self._is_committing = True
        try:
            self._agent.listeners.accepting.clear()
            with gevent.Timeout(STEP_TIMEOUT_S, UpgradeFailed("systemd takes no notice of the new process")):
                while not self._notifier.name_main(successor.pid):
                    gevent.sleep(LOOK_EVERY_S)
            successor.send("main")
            successor.expect("taken", STEP_TIMEOUT_S)
            self._notifier.close()
            self.successor = successor
            self._predecessors.let_go()
        finally:
            self._is_committing = False


def _batches(all_of_them: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(all_of_them), MAX_SOCKETS):
        yield all_of_them[first : first + MAX_SOCKETS]
