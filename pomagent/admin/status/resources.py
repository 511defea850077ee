"""Maps paths to what the status server and the control socket show of the agent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from pomagent.admin.json_object import JsonObject
from pomagent.admin.status import health
from pomagent.admin.status.batches import in_batches
from pomagent.admin.status.documents import (
    config_document,
    event_document,
    readiness_document,
    reload_document,
    sessions_document,
    status_document,
)
from pomagent.admin.status.health import Health
from pomagent.admin.status.http import HttpRequest, HttpResponse, text_response
from pomagent.admin.status.hub_lag import HubLag
from pomagent.admin.status.route_states import RouteStatus, route_status
from pomagent.admin.status.snapshot import Snapshot, take_snapshot
from pomagent.agent import Agent
from pomagent.log.recent import RecentEvents
from pomagent.reload.reloader import Reloader
from pomagent.runtime.hub import give_way
from pomagent.runtime.threads import Threads
from pomagent.settings import Route

READY_PREFIX = "/readyz/"
EVENTS_SHOWN = 50
"""Maximum events in the status document."""
MAX_SESSIONS = 10_000
"""Maximum sessions in one answer."""
_NO_QUERY: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Resource:
    """One path of the status server."""

    show: Callable[[HttpRequest], HttpResponse]
    """Returns the response. May block its greenlet."""
    is_private: bool = False
    """Whether ``status.allow_users`` restricts access."""


class StatusResources:
    """Everything that one agent shows of itself."""

    def __init__(
        self, agent: Agent, reloader: Reloader, recent: RecentEvents, started_at: float, *,
        is_started: Callable[[], bool], is_draining: Callable[[], bool],
        old_processes: Callable[[], Sequence[JsonObject]] = tuple,
        on_hub_stall: Callable[[float], None] = lambda _lag_s: None,
    ) -> None:  # fmt: skip
        """``old_processes`` returns what is known of processes that still have sessions after an upgrade.

        ``on_hub_stall`` gets the duration in seconds of each time that the hub stood still.
        """
        self._old_processes = old_processes
        self._agent = agent
        self._reloader = reloader
        self._recent = recent
        self._started_at = started_at
        self._is_started = is_started
        self._is_draining = is_draining
        self._threads = Threads(1)
        self.hub_lag = HubLag(on_hub_stall)
        self._resources = {
            "/": Resource(lambda _: self._page(), is_private=True),
            "/livez": Resource(lambda _: _as_text(health.OK)),
            "/startupz": Resource(lambda _: _as_text(health.OK if is_started() else health.STARTING)),
            "/readyz": Resource(lambda request: _as_text(self._readiness(request.query.get("require", "")))),
            "/metrics": Resource(lambda _: self._metrics(), is_private=True),
            "/status.json": Resource(lambda _: self._json(self.status()), is_private=True),
            "/sessions.json": Resource(lambda request: self._json(self.sessions(request.query)), is_private=True),
        }

    def find(self, path: str) -> Resource | None:
        """Return the resource at a path, or None if there is none."""
        if path.startswith(READY_PREFIX):
            return Resource(lambda _: _as_text(self._readiness_of(path.removeprefix(READY_PREFIX))))
        return self._resources.get(path)

    @property
    def paths(self) -> list[str]:
        """All paths of the status server but those of single routes."""
        return list(self._resources)

    @property
    def get_handlers(self) -> Mapping[str, Callable[[], JsonObject]]:
        """Handlers of the control socket's GET requests by URL path."""
        return {
            "/status": self.status,
            "/sessions": self.sessions,
            "/readiness": self.readiness,
            "/config": lambda: config_document(self._reloader),
            "/preview": lambda: reload_document(self._reloader.preview()),
        }

    def status(self) -> JsonObject:
        """Return what ``pomagent status --json`` prints. Blocks its greenlet."""
        status = status_document(self._agent, self._reloader, self._started_at, self._old_processes(), give_way)
        status["is_draining"] = self._is_draining()
        status["events"] = [event_document(note) for note in self._recent.latest(EVENTS_SHOWN)]
        return status

    def sessions(self, query: Mapping[str, str] = _NO_QUERY) -> JsonObject:
        """Return what ``pomagent sessions --json`` prints, at most ``limit`` of the query. Blocks its greenlet."""
        limit = query.get("limit", "")
        max_count = int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 9 else MAX_SESSIONS
        return sessions_document(self._agent, min(max_count, MAX_SESSIONS), self._old_processes(), give_way)

    def readiness(self) -> JsonObject:
        """Return what ``pomagent wait`` needs: whether the agent and each route are ready. Blocks."""
        return {
            "is_ready": self._obstacle() is None,
            "routes": [readiness_document(status) for status in self._statuses()],
        }

    def _page(self) -> HttpResponse:
        content_type, body, headers = self._threads.call(_as_page, self.status())
        return HttpResponse(HTTPStatus.OK, body, content_type, headers)

    def _json(self, document: JsonObject) -> HttpResponse:
        return HttpResponse(HTTPStatus.OK, self._threads.call(_as_json, document), "application/json")

    def _readiness(self, require: str) -> Health:
        return self._obstacle() or health.readiness(self._statuses() if require else (), require)

    def _readiness_of(self, name: str) -> Health:
        statuses = [route_status(route, self._agent) for route in self._routes if route.name == name]
        return self._obstacle() or health.readiness_of({status.name: status for status in statuses}, name)

    def _obstacle(self) -> Health | None:
        if self._is_draining():
            return health.DRAINING
        return None if self._is_started() else health.STARTING

    @property
    def _routes(self) -> Sequence[Route]:
        settings = self._reloader.current
        return settings.routes if settings else ()

    def _statuses(self) -> list[RouteStatus]:
        """Return the status of every route. Blocks its greenlet."""
        return [route_status(route, self._agent) for route in in_batches(self._routes, give_way)]

    def _metrics(self) -> HttpResponse:
        snapshot = take_snapshot(
            self._agent, self._reloader, started_at=self._started_at, is_draining=self._is_draining(),
            hub_lag=self.hub_lag.seconds.now, give_way=give_way,
        )  # fmt: skip
        content_type, body = self._threads.call(_as_metrics, snapshot)
        return HttpResponse(HTTPStatus.OK, body, content_type)


def _as_json(document: JsonObject) -> bytes:
    return json.dumps(document).encode()


def _as_page(document: JsonObject) -> tuple[str, bytes, Mapping[str, str]]:
    from pomagent.admin.status import page  # noqa: PLC0415 - loaded in a thread, and only if the page is used

    return "text/html; charset=utf-8", page.rendered(document), page.headers()


def _as_metrics(snapshot: Snapshot) -> tuple[str, bytes]:
    from pomagent.admin.status import metrics  # noqa: PLC0415 - 0.1 s to import: in a thread, if scraped

    return metrics.CONTENT_TYPE, metrics.formatted(snapshot)


def _as_text(answer: Health) -> HttpResponse:
    return text_response(answer.status, answer.text)
