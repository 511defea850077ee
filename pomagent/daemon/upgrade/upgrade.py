"""Replaces this process by one of the installed version, and gives up nothing until that one is the main process.

The order matters. The new process loads, binds and warms up without accepting. Then both processes accept. Then this
one stops accepting, and systemd is notified which process is the main one. If anything fails before the new process
has confirmed that, the new process is killed and this one accepts again.
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
from pomagent.daemon.upgrade.new_process import NewProcess, UpgradeFailed
from pomagent.daemon.upgrade.old_processes import OldProcesses
from pomagent.listeners.inherited import Inherited
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.reload.reloader import Reloader
from pomagent.runtime.sd_notify import Notifier

READY_TIMEOUT_S: Final = 30.0
"""Seconds for loading, binding and warming up. All steps together take less than the ``upgrade`` command waits."""
STEP_TIMEOUT_S: Final = 3.0
"""Seconds for a step that needs only a message and its answer."""
LOOK_EVERY_S: Final = 0.02
T = TypeVar("T")


class Upgrade:
    """Runs one upgrade at a time, and no further one after a success."""

    def __init__(
        self, agent: Agent, reloader: Reloader, notifier: Notifier, old_processes: OldProcesses,
        inheritable_sockets: Callable[[], list[Inherited]], environ: Mapping[str, str], log: Logger,
    ) -> None:  # fmt: skip
        """``inheritable_sockets`` returns all sockets on which this process listens."""
        self._agent = agent
        self._reloader = reloader
        self._notifier = notifier
        self._old_processes = old_processes
        self._inheritable_sockets = inheritable_sockets
        self._environ = environ
        self._log = log
        self._is_running = False
        self._is_committing = False
        self.new_process: NewProcess | None = None
        """The main process, once that is not this one."""

    def run(self) -> JsonObject:
        """Upgrade, and return the answer to the ``upgrade`` command. A failure changes nothing. Blocks.

        Call it by way of ``guarding``.
        """
        self._is_running = True
        self._log.info(events.AGENT_UPGRADING, version=__version__, sessions=self._agent.session_count)
        try:
            new = self._replace()
        except UpgradeFailed as error:
            self._log.error(events.AGENT_UPGRADE_FAILED, error=str(error), problems=error.problems)
            return {"result": "failed", "code": error.code, "error": str(error), "problems": error.problems}
        finally:
            self._is_running = False
        result = {"version": new.version, "pid": new.pid, "sessions_left": self._agent.session_count}
        self._log.info(events.AGENT_UPGRADED, **result)
        return {"result": "upgraded", **result}

    def guarding(self, handle: BodyHandler) -> BodyHandler:
        """Decline a request during an upgrade, because its effect would be lost with this process."""

        def handle_unless_replaced(request: JsonObject) -> JsonObject:
            if self._is_running or self.new_process is not None:
                raise Declined("an upgrade is under way; ask again in a moment")
            return handle(request)

        return handle_unless_replaced

    def wait_for_commit(self) -> None:
        """Wait while it is undecided which process is the main one, before this one may end. Blocks."""
        while self._is_committing:
            gevent.sleep(LOOK_EVERY_S)

    def _replace(self) -> NewProcess:
        if os.getpid() == 1:
            raise UpgradeFailed(
                "this process is PID 1, and its container ends with it; start another container instead"
            )
        self._reloader.suspend()  # for good after a success: both processes follow one file, only one may apply it
        new: NewProcess | None = None
        try:
            new = NewProcess.start(self._environ)
            self._prepare(new)
            self._commit(new)
        except BaseException:
            if new is not None:
                new.kill()
                self._agent.listeners.restore_permissions()
            self._agent.listeners.accepting.set()
            self._reloader.resume()
            raise
        return new

    def _prepare(self, new: NewProcess) -> None:
        """Return once both processes accept. Blocks. Raises UpgradeFailed."""
        for sockets in _batches(self._inheritable_sockets()):
            new.send("sockets", [each.sock for each in sockets], names=[each.name for each in sockets])
        for processes in _batches(self._old_processes.all):
            channels = [process.channel.sock for process in processes]
            new.send("predecessors", channels, processes=[process.document for process in processes])
        new.send("begin", **self._state())
        new.expect("ready", READY_TIMEOUT_S)
        new.send("serve")
        new.expect("serving", STEP_TIMEOUT_S)

    def _state(self) -> dict[str, Any]:
        """Return what the new process needs to know about this one."""
        return {
            "pid": os.getpid(), "version": __version__, "sessions": self._agent.session_count,
            "quarantined": sorted(self._agent.quarantined), "paused": self._agent.running.paused,
            "waits_for": [problem.key for problem in self._agent.waits_for],
        }  # fmt: skip

    def _commit(self, new: NewProcess) -> None:
        """Make it the main process. Not earlier, because one that dies before must never be systemd's main process."""
        self._is_committing = True
        try:
            self._agent.listeners.accepting.clear()
            with gevent.Timeout(STEP_TIMEOUT_S, UpgradeFailed("systemd takes no notice of the new process")):
                while not self._notifier.name_main(new.pid):
                    gevent.sleep(LOOK_EVERY_S)
            new.send("main")
            new.expect("taken", STEP_TIMEOUT_S)
            self._notifier.close()
            self.new_process = new
            self._old_processes.hand_over()
        finally:
            self._is_committing = False


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), MAX_SOCKETS):
        yield items[first : first + MAX_SOCKETS]
