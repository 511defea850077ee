"""The agent as a process: start in the right order, follow the files, obey signals, tell systemd, stop in order."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import gevent
from gevent.event import Event
from gevent.pool import Group
from pydantic import SecretStr

from pomagent import __version__
from pomagent.admin.control.actions import OperatorActions
from pomagent.admin.control.login_tokens import LoginTokens
from pomagent.admin.control.server import ControlServer, Declined, key_of
from pomagent.admin.diagnosis.agent_report import AgentReport, ReportSources
from pomagent.admin.json_object import JsonObject
from pomagent.admin.status import documents as status
from pomagent.admin.status.resources import StatusResources
from pomagent.admin.status.server import StatusServer
from pomagent.agent import Agent
from pomagent.config.load import load
from pomagent.credentials.sources import TokenSources
from pomagent.daemon import preload
from pomagent.daemon.drain import Drain
from pomagent.daemon.systemd_status import SystemdStatus, rejected
from pomagent.daemon.upgrade.old_processes import Predecessors
from pomagent.daemon.upgrade.requests import SIGNAL, Succession
from pomagent.daemon.upgrade.takeover import Takeover, TakeoverFailed
from pomagent.daemon.upgrade.upgrade import Upgrade
from pomagent.daemon.watchdog import Watchdog
from pomagent.errors import BindError, ConfigError
from pomagent.listeners.fd_store import FdStore
from pomagent.listeners.inherited import Inherited
from pomagent.log import events
from pomagent.log.crash_reports import install_crash_boundary
from pomagent.log.logger import LogFormat, Logger, LogLevel, resolve_format
from pomagent.log.recent import RecentEvents
from pomagent.log.verbosity import Verbosity
from pomagent.reload.last_good import LastGood
from pomagent.reload.plan import Plan
from pomagent.reload.reloader import Reloader
from pomagent.reload.watcher import Watch
from pomagent.runtime.exit_codes import INVALID, NOT_PERMITTED
from pomagent.runtime.sd_notify import Notifier
from pomagent.settings import Credential, Settings, UnixAddress


class Service:
    """One run of ``pomagent run``."""

    def __init__(
        self, path: Path, environ: Mapping[str, str], log: Logger, level: LogLevel, log_format: LogFormat,
        takeover: Takeover | None = None,
    ) -> None:  # fmt: skip
        self._format = log_format
        self._path = path
        self._environ = environ
        self._recent = RecentEvents()
        self._log = log = self._recent.followed(log)
        self._notifier = Notifier(environ)
        self._sources = TokenSources(environ, log)
        self._takeover = takeover or Takeover()
        self._store = FdStore(self._notifier, self._takeover.inherited, log)
        self._verbosity = Verbosity(level)
        self._agent = Agent(log, self._verbosity, self._read_token, self._store)
        self._steering = OperatorActions(self._agent, self._verbosity)
        self._handover = LoginTokens(self._agent, environ, log)
        self._reloader = Reloader(self._load, self._apply, self._follow, LastGood(path, environ, log), log)
        self._watch = Watch(self._reloader.notice, log)
        self._group = Group()
        self._telling = Group()
        self._stop = Event()
        self._predecessors = Predecessors()
        self._drain = Drain(self._agent, self._predecessors, self._notifier)
        self._says = SystemdStatus(self._agent, self._reloader, self._predecessors, self._notifier)
        self._watchdog = Watchdog(self._notifier, self._agent.listeners.find_stuck, log)
        self._control: ControlServer | None = None
        self._signal = ""
        self._began = time.monotonic()
        self._started_at = time.time()
        self._is_started = False
        self._site = StatusResources(
            self._agent, self._reloader, self._recent, self._started_at, is_started=lambda: self._is_started,
            is_draining=self._stop.is_set, old_processes=lambda: [each.document for each in self._predecessors.all],
        )  # fmt: skip
        sources = ReportSources(
            self._agent, lambda: self._reloader.current, self._site.status, self._recent, environ, owners=(self,)
        )
        self._account = AgentReport(sources)
        gate = self._agent.listeners.accepting
        self._status_server = StatusServer(
            self._site, self._agent.diag, self._agent.users, log, store=self._store, gate=gate
        )
        self._upgrade = Upgrade(
            self._agent, self._reloader, self._notifier, self._predecessors, self._shared, environ, log
        )
        self._succession = Succession(
            self._upgrade, self._agent, self._reloader, self._drain, self._group,
            stop=self._begin_to_stop, is_stopping=self._stop.is_set,
        )  # fmt: skip

    def run(self) -> int:
        """Serve until a signal and return the exit code. Blocks."""
        restore = install_crash_boundary(self._log, gevent.get_hub())
        try:
            return self._serve()
        finally:
            restore()

    def _serve(self) -> int:
        _raise_descriptor_limit()
        gevent.config.track_greenlet_tree = False  # ten frames of who spawned it: a quarter of its price
        self._obey_signals()
        self._takeover.hold(self._agent, self._notifier)
        self._telling.spawn(self._says.extend_start).name = "start"
        self._watch.watch(frozenset({self._path}))  # before reading: an edit in between is not lost
        try:
            self._reloader.start()
        except ConfigError as error:
            self._log.error(events.CONFIG_REJECTED, path=self._path, problems=[str(p) for p in error.problems])
            self._notifier.status(rejected(error.problems))
            self._takeover.fail("the configuration is invalid", INVALID, list(map(str, error.problems)))
            return INVALID
        gc.freeze()  # what a start builds stays; looking through it each time would stall the hub (1,000 routes: 40 ms)
        if self._agent.quarantined and not self._agent.bound_count:
            self._log.error(events.AGENT_STOPPED, error="no route could be bound", signal="")
            self._takeover.fail("no route could be bound", NOT_PERMITTED, list(self._agent.quarantined.values()))
            return NOT_PERMITTED
        gevent.get_hub().threadpool.apply(preload.load_all)  # 0.1 s, in which clients are served already
        gc.enable()
        try:
            self._takeover.complete(self._agent, self._notifier)
        except TakeoverFailed as error:
            self._log.error(events.AGENT_STOPPED, error=str(error), signal="")
            return error.code
        self._predecessors.follow(self._takeover.predecessors)
        self._start_control()
        self._store.discard_unclaimed()
        self._log.info(
            events.AGENT_STARTED, version=__version__, routes=self._agent.bound_count,
            quarantined=len(self._agent.quarantined), pid=os.getpid(),
        )  # fmt: skip
        self._is_started = True
        self._telling.kill()
        self._telling.spawn(self._notifier.run).name = "notify"
        self._telling.spawn(self._watchdog.run).name = "watchdog"
        self._telling.spawn(self._site.hub_lag.run).name = "hub lag"
        self._notifier.ready(self._says.line)
        self._group.spawn(self._reloader.run).name = "reload"
        self._group.spawn(self._says.run).name = "status"
        self._stop.wait()
        self._upgrade.wait_for_commit()
        self._group.kill()  # no reload any more, whatever is edited or signalled
        return self._retire() if self._succession.has_happened else self._end()

    def _start_control(self) -> None:
        """Listen for commands; without them the agent serves all the same."""
        assert self._reloader.current is not None
        path = self._reloader.current.status.control_socket
        if path is None:
            return
        takes = {
            **self._handover.body_handlers,
            **self._steering.body_handlers,
            "/upgrade": self._succession.when_asked,
        }
        self._control = ControlServer(
            path,
            get_handlers={**self._site.get_handlers, **self._steering.get_handlers, "/diag": self._account.files},
            post_handlers={"/reload": self._reload, "/drain": self._drain_when_asked},
            body_handlers={url: self._upgrade.guarding(take) for url, take in takes.items()},
            log=self._log,
        )
        try:
            self._control.start(self._store.claim(key_of(path), UnixAddress(path)))
        except BindError as error:
            cause = f"{error}; no command reaches this agent"
            self._log.error(events.LISTENER_BIND_FAILED, listen=f"unix:{path}", error=cause)

    def _load(self) -> Settings:
        settings = load(self._path, self._environ)
        if self._reloader.current is None:  # the first settings say how they themselves are logged
            self._format.name = resolve_format(settings.agent.log_format, sys.stderr.fileno())
        return settings

    def _apply(self, settings: Settings, plan: Plan) -> None:
        with self._status_server.moving_to(settings, is_start=self._reloader.current is None):
            self._agent.apply(settings, plan)
        self._format.name = resolve_format(settings.agent.log_format, sys.stderr.fileno())

    def _reload(self) -> JsonObject:
        """What was asked for over the control socket, in a greenlet that a stop ends like any other reload."""
        if not self._stop.is_set():
            greenlet = self._group.spawn(self._reloader.reload)
            greenlet.name = "reload"
            outcome = greenlet.get()
            if not isinstance(outcome, gevent.GreenletExit):
                self._says.send()
                return status.reload_document(outcome)
        raise Declined("the agent is stopping and reloads nothing any more")

    def _read_token(self, credential: Credential) -> SecretStr:
        source = self._handover if credential.source == "login" else self._sources
        return source.read(credential)

    def _follow(self, watched: frozenset[Path], patterns: tuple[str, ...]) -> None:
        self._watch.watch(watched | {self._path}, patterns)

    def _obey_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, self._on_stop, signal.Signals(number).name)
        gevent.signal_handler(signal.SIGHUP, self._reloader.request)
        gevent.signal_handler(signal.SIGUSR1, self._agent.retry)
        gevent.signal_handler(signal.SIGUSR2, self._succession.when_signalled)

    def _on_stop(self, name: str) -> None:
        if not self._begin_to_stop(name):
            self._hurry()
            self._signal = name

    def _begin_to_stop(self, name: str) -> bool:
        """False if a stop has begun before."""
        if self._stop.is_set():
            return False
        self._signal = name
        self._stop.set()
        return True

    def _drain_when_asked(self) -> JsonObject:
        """The same as the first signal; unlike a second one, asking again hurries nobody."""
        self._begin_to_stop("drain")
        return {"sessions_left": self._agent.session_count}

    def _hurry(self) -> None:
        """A second signal ends everything; to an old process that may take its time, it is the first."""
        settings = self._reloader.current
        if self._succession.has_happened and settings is not None and not self._drain.is_limited:
            self._drain.limit(settings.drain.timeout_s)
        else:
            self._drain.hurry()

    def _shared(self) -> list[Inherited]:
        control = self._control.shared if self._control is not None else []
        return [*self._agent.listeners.inheritable(), *self._status_server.shared, *control]

    # --- the end --------------------------------------------------------------------------------------------------

    def _retire(self) -> int:
        """Finish what began here, and touch nothing that is the new process's."""
        self._succession.let_go(self._signal)
        self._status_server.leave()
        if self._control is not None:
            self._control.leave()
        self._log.info(events.AGENT_DRAINING, signal=SIGNAL, sessions_left=self._agent.session_count)
        return self._succession.finish(self._close)

    def _end(self) -> int:
        settings = self._reloader.current
        assert settings is not None
        self._notifier.stopping("draining")
        self._log.info(events.AGENT_DRAINING, signal=self._signal, sessions_left=self._agent.session_count)
        drain = settings.drain
        return self._close(self._drain.run(self._agent.stop_accepting, drain.accept_for_s, drain.timeout_s))

    def _close(self, aborted: int) -> int:
        self._telling.kill()
        self._watch.close()
        if self._control is not None:
            self._control.close()
        self._status_server.close()
        self._log.info(
            events.AGENT_STOPPED, signal=self._signal, sessions_left=aborted,
            uptime_ms=round((time.monotonic() - self._began) * 1000),
        )  # fmt: skip
        return 0


def _raise_descriptor_limit() -> None:
    """A session needs two descriptors, and the usual soft limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
