"""Builds the objects of one ``pomagent run`` and connects them: each call from one to another is a named step."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import gevent
from gevent.pool import Group
from pydantic import SecretStr

from pomagent.admin.control.actions import OperatorActions
from pomagent.admin.control.login_tokens import LoginTokens
from pomagent.admin.control.server import ControlServer, Declined, key_of
from pomagent.admin.diagnosis.agent_report import AgentReport, ReportSources
from pomagent.admin.json_object import JsonObject
from pomagent.admin.status import documents as status
from pomagent.admin.status.resources import StatusResources
from pomagent.admin.status.server import StatusServer
from pomagent.agent import Agent
from pomagent.config.load import InputsMissing, load
from pomagent.credentials.sources import TokenSources
from pomagent.daemon.drain import Drain
from pomagent.daemon.socket_files import SocketFiles
from pomagent.daemon.stop_request import StopRequest
from pomagent.daemon.systemd_status import SystemdStatus
from pomagent.daemon.upgrade.old_processes import OldProcesses
from pomagent.daemon.upgrade.requests import UpgradeRequests
from pomagent.daemon.upgrade.takeover import Takeover
from pomagent.daemon.upgrade.upgrade import Upgrade
from pomagent.daemon.watchdog import Watchdog
from pomagent.errors import BindError
from pomagent.listeners.fd_store import FdStore
from pomagent.listeners.inherited import Inherited
from pomagent.log import events
from pomagent.log.logger import LogFormat, Logger, LogLevel, resolve_format
from pomagent.log.recent import RecentEvents
from pomagent.log.verbosity import Verbosity
from pomagent.reload.last_good import LastGood
from pomagent.reload.plan import Plan
from pomagent.reload.reloader import Reloader
from pomagent.reload.watcher import Watch
from pomagent.runtime.sd_notify import Notifier
from pomagent.settings import Credential, Settings, UnixAddress


class Wiring:
    """All objects of one process. ``Service`` decides when each of them starts and stops."""

    def __init__(
        self, path: Path, environ: Mapping[str, str], log: Logger, level: LogLevel, log_format: LogFormat,
        takeover: Takeover,
    ) -> None:  # fmt: skip
        self._path = path
        self._environ = environ
        self._log_format = log_format
        self._recent = RecentEvents()
        self.log = log = self._recent.followed(log)
        self.takeover = takeover
        self.stop = StopRequest()
        self.until_stop = Group()
        """Greenlets that a stop ends, such as reloads."""
        self.until_exit = Group()
        """Greenlets that report to systemd until the process exits."""
        self.started_at = time.time()
        self.is_started = False
        self.notifier = Notifier(environ)
        self.store = FdStore(self.notifier, takeover.inherited, log)
        self._verbosity = Verbosity(level)
        self._token_sources = TokenSources(environ, log)
        self.agent = Agent(log, self._verbosity, self.read_token, self.store)
        self._login_tokens = LoginTokens(self.agent, environ, log)
        self.reloader = Reloader(
            self.load_settings, self.apply_settings, self.watch_files, LastGood(path, environ, log), log
        )
        self.watch = Watch(self.reloader.notice, log)
        self.old_processes = OldProcesses()
        self.drain = Drain(self.agent, self.old_processes, self.notifier)
        self.systemd_status = SystemdStatus(self.agent, self.reloader, self.old_processes, self.notifier)
        self.socket_files = SocketFiles(self.mend_sockets)
        self.watchdog = Watchdog(self.notifier, self.agent.listeners.find_stuck, log)
        self.upgrade = Upgrade(
            self.agent, self.reloader, self.notifier, self.old_processes, self.inheritable_sockets, environ, log
        )
        self.upgrade_requests = UpgradeRequests(
            self.upgrade, self.agent, self.reloader, self.drain, self.until_stop, self.stop
        )
        self._build_admin()

    def _build_admin(self) -> None:
        agent, reloader, log = self.agent, self.reloader, self.log
        self._actions = OperatorActions(agent, self._verbosity)
        self.resources = StatusResources(
            agent, reloader, self._recent, self.started_at, is_started=lambda: self.is_started,
            is_draining=lambda: self.stop.is_made,
            old_processes=lambda: [process.document for process in self.old_processes.all],
            on_hub_stall=lambda lag_s: log.warning(events.HUB_STALLED, duration_ms=round(lag_s * 1000)),
        )  # fmt: skip
        self._report = AgentReport(
            ReportSources(
                agent, lambda: reloader.current, self.resources.status, self._recent, self._environ, owners=(self,)
            )
        )
        self.status_server = StatusServer(
            self.resources, agent.diag, agent.users, log, store=self.store, gate=agent.listeners.accepting
        )
        self.control_server: ControlServer | None = None
        self._is_control_lost = False

    # --- steps ----------------------------------------------------------------------------------------------------

    def load_settings(self) -> Settings:
        """Read and validate the files. Blocks its thread. Raises ConfigError."""
        try:
            settings = load(self._path, self._environ)
        except InputsMissing as error:
            self._log_first_as_set(error.settings)
            raise
        self._log_first_as_set(settings)
        return settings

    def _log_first_as_set(self, settings: Settings) -> None:
        """Let the first settings decide how they themselves are logged."""
        if self.reloader.current is None:
            self._set_log_format(settings)

    def apply_settings(self, settings: Settings, plan: Plan) -> None:
        """Put settings to work, those of the status server included, or change nothing. Blocks. Raises ConfigError."""
        with self.status_server.moving_to(settings, is_start=self.reloader.current is None):
            self.agent.apply(settings, plan)
        self._set_log_format(settings)

    def _set_log_format(self, settings: Settings) -> None:
        self._log_format.name = resolve_format(settings.agent.log_format, sys.stderr.fileno())

    def watch_files(self, watched: frozenset[Path], patterns: tuple[str, ...]) -> None:
        """Watch these paths and the main file. Blocks."""
        self.watch.watch(watched | {self._path}, patterns)

    def read_token(self, credential: Credential) -> SecretStr:
        """Read a credential's token from its source. Blocks. Raises CredentialError."""
        source = self._login_tokens if credential.source == "login" else self._token_sources
        return source.read(credential)

    def inheritable_sockets(self) -> list[Inherited]:
        """Return every socket on which this process listens."""
        control = self.control_server.shared if self.control_server is not None else []
        return [*self.agent.listeners.inheritable(), *self.status_server.shared, *control]

    # --- commands -------------------------------------------------------------------------------------------------

    def open_control_socket(self, path: Path) -> None:
        """Listen for commands. If the socket cannot be bound, the agent serves without it."""
        body_handlers = {
            **self._login_tokens.body_handlers,
            **self._actions.body_handlers,
            "/upgrade": self.upgrade_requests.on_command,
        }
        self.control_server = ControlServer(
            path,
            get_handlers={**self.resources.get_handlers, **self._actions.get_handlers, "/diag": self._report.files},
            post_handlers={"/reload": self.reload_now, "/drain": self.drain_now},
            body_handlers={url: self.upgrade.guarding(handle) for url, handle in body_handlers.items()},
            log=self.log,
        )
        try:
            self.control_server.start(self.store.claim(key_of(path), UnixAddress(path)))
        except BindError as error:
            self._is_control_lost = True
            self._log_missing_control_socket(path, error)

    def mend_sockets(self) -> None:
        """Bind the Unix sockets again whose files were removed or replaced. Blocks for a moment."""
        self.agent.mend_sockets()
        if self.control_server is None or not self.agent.listeners.accepting.is_set():
            return
        try:
            self.control_server.mend()
        except BindError as error:
            if not self._is_control_lost:
                self._log_missing_control_socket(self.control_server.path, error)
            self._is_control_lost = True
        else:
            self._is_control_lost = False

    def _log_missing_control_socket(self, path: Path, error: BindError) -> None:
        cause = f"{error}; no command reaches this agent"
        self.log.error(events.LISTENER_BIND_FAILED, listen=f"unix:{path}", error=cause)

    def reload_now(self) -> JsonObject:
        """Reload for the ``reload`` command, in a greenlet that a stop ends. Blocks. Raises Declined."""
        if not self.stop.is_made:
            greenlet = self.until_stop.spawn(self.reloader.reload)
            greenlet.name = "reload"
            outcome = greenlet.get()
            if not isinstance(outcome, gevent.GreenletExit):
                self.systemd_status.send()
                return status.reload_document(outcome)
        raise Declined("the agent is stopping and no longer reloads")

    def drain_now(self) -> JsonObject:
        """Stop for the ``drain`` command. Unlike a second signal, a second command ends no session."""
        self.stop.make("drain")
        return {"sessions_left": self.agent.session_count}
