"""Runs the agent as a process: starts it in order, obeys signals, reports to systemd and stops it in order."""

from __future__ import annotations

import gc
import os
import resource
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import gevent

from pomagent import __version__
from pomagent.daemon import preload
from pomagent.daemon.systemd_status import rejected
from pomagent.daemon.upgrade.requests import UPGRADE
from pomagent.daemon.upgrade.takeover import Takeover, TakeoverFailed
from pomagent.daemon.wiring import Wiring
from pomagent.errors import ConfigError
from pomagent.log import events
from pomagent.log.crash_reports import install_crash_boundary
from pomagent.log.logger import LogFormat, Logger, LogLevel
from pomagent.runtime.exit_codes import INVALID, NOT_PERMITTED, NOT_YET


class Service:
    """One run of ``pomagent run``."""

    def __init__(
        self, path: Path, environ: Mapping[str, str], log: Logger, level: LogLevel, log_format: LogFormat,
        takeover: Takeover | None = None,
    ) -> None:  # fmt: skip
        self._path = path
        self._began = time.monotonic()
        self._parts = Wiring(path, environ, log, level, log_format, takeover or Takeover())
        self._log = self._parts.log

    def run(self) -> int:
        """Serve until a signal and return the exit code. Blocks."""
        restore = install_crash_boundary(self._log, gevent.get_hub())
        try:
            return self._run()
        finally:
            restore()

    def _run(self) -> int:
        parts = self._parts
        _raise_descriptor_limit()
        gevent.config.track_greenlet_tree = False  # it costs a quarter of a spawn: ten frames of the spawning stack
        self._install_signal_handlers()
        code = self._start() or self._take_over()
        if code:
            return code
        self._serve()
        parts.stop.wait()
        parts.upgrade.wait_for_commit()
        parts.until_stop.kill()  # from here on, no edit or signal causes a reload
        return self._retire() if parts.upgrade_requests.is_replaced else self._end()

    # --- the start ------------------------------------------------------------------------------------------------

    def _start(self) -> int:
        """Put the first settings to work, and return 0 or an exit code. Blocks."""
        parts = self._parts
        parts.takeover.hold(parts.agent, parts.notifier)
        parts.until_exit.spawn(parts.systemd_status.extend_start).name = "start"
        parts.watch.watch(frozenset({self._path}))  # before reading: an edit in between is not lost
        try:
            parts.reloader.start()
        except ConfigError as error:
            problems = list(map(str, error.problems))
            self._log.error(events.CONFIG_REJECTED, path=self._path, problems=problems)
            parts.notifier.status(rejected(error.problems))
            code = NOT_YET if error.may_pass else INVALID
            parts.takeover.fail("the configuration is invalid", code, problems)
            return code
        gc.freeze()  # what a start builds stays, and each full collection of it stalls the hub (1,000 routes: 40 ms)
        if parts.agent.quarantined and not parts.agent.bound_count:
            self._log.error(events.AGENT_STOPPED, error="no route could be bound", signal="")
            parts.takeover.fail("no route could be bound", NOT_PERMITTED, list(parts.agent.quarantined.values()))
            return NOT_PERMITTED
        return 0

    def _take_over(self) -> int:
        """Become the main process, and return 0 or an exit code. Blocks."""
        parts = self._parts
        gevent.get_hub().threadpool.apply(preload.load_all)  # takes 0.1 s, in which clients are served already
        gc.enable()
        try:
            parts.takeover.complete(parts.agent, parts.notifier)
        except TakeoverFailed as error:
            self._log.error(events.AGENT_STOPPED, error=str(error), signal="")
            return error.code
        parts.old_processes.follow(parts.takeover.old_processes)
        return 0

    def _serve(self) -> None:
        """Start what a process does only once it is the main one. Does not block."""
        parts = self._parts
        settings = parts.reloader.current
        assert settings is not None
        if settings.status.control_socket is not None:
            parts.open_control_socket(settings.status.control_socket)
        parts.store.discard_unclaimed()
        self._log.info(
            events.AGENT_STARTED, version=__version__, routes=parts.agent.bound_count,
            quarantined=len(parts.agent.quarantined), pid=os.getpid(),
        )  # fmt: skip
        parts.is_started = True
        parts.until_exit.kill()  # ends ``extend_start``
        parts.until_exit.spawn(parts.notifier.run).name = "notify"
        parts.until_exit.spawn(parts.watchdog.run).name = "watchdog"
        parts.until_exit.spawn(parts.resources.hub_lag.run).name = "hub lag"
        parts.notifier.ready(parts.systemd_status.line)
        parts.until_stop.spawn(parts.reloader.run).name = "reload"
        parts.until_stop.spawn(parts.socket_files.run).name = "socket files"
        parts.until_stop.spawn(parts.systemd_status.run).name = "status"

    # --- signals --------------------------------------------------------------------------------------------------

    def _install_signal_handlers(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, self._on_stop_signal, signal.Signals(number).name)
        gevent.signal_handler(signal.SIGHUP, self._parts.reloader.request)
        gevent.signal_handler(signal.SIGUSR1, self._parts.agent.retry)
        gevent.signal_handler(signal.SIGUSR2, self._parts.upgrade_requests.on_signal)

    def _on_stop_signal(self, name: str) -> None:
        if not self._parts.stop.make(name):
            self._hurry()
            self._parts.stop.cause = name

    def _hurry(self) -> None:
        """End all sessions on a second signal. An old process without a time limit gets one instead."""
        parts = self._parts
        settings = parts.reloader.current
        if parts.upgrade_requests.is_replaced and settings is not None and not parts.drain.is_limited:
            parts.drain.limit(settings.drain.timeout_s)
        else:
            parts.drain.hurry()

    # --- the end --------------------------------------------------------------------------------------------------

    def _retire(self) -> int:
        """Finish this process's sessions after an upgrade. The sockets belong to the new process. Blocks."""
        parts = self._parts
        parts.upgrade_requests.release_new_process()
        parts.status_server.leave()
        if parts.control_server is not None:
            parts.control_server.leave()
        self._log.info(events.AGENT_DRAINING, signal=UPGRADE, sessions_left=parts.agent.session_count)
        return parts.upgrade_requests.finish(self._close)

    def _end(self) -> int:
        """Drain and close. Blocks."""
        parts = self._parts
        settings = parts.reloader.current
        assert settings is not None
        parts.notifier.stopping("draining")
        self._log.info(events.AGENT_DRAINING, signal=parts.stop.cause, sessions_left=parts.agent.session_count)
        drain = settings.drain
        return self._close(parts.drain.run(parts.agent.stop_accepting, drain.accept_for_s, drain.timeout_s))

    def _close(self, aborted_count: int) -> int:
        parts = self._parts
        parts.until_exit.kill()
        parts.watch.close()
        if parts.control_server is not None:
            parts.control_server.close()
        parts.status_server.close()
        self._log.info(
            events.AGENT_STOPPED, signal=parts.stop.cause, sessions_left=aborted_count,
            uptime_ms=round((time.monotonic() - self._began) * 1000),
        )  # fmt: skip
        return 0


def _raise_descriptor_limit() -> None:
    """Raise the soft limit, usually 1,024, to the hard one: a session needs two descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
