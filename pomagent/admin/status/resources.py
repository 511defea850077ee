"""Which path shows what; knows the agent and nothing of HTTP connections."""

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
    document,
    event_document,
    readiness_document,
    reload_document,
    sessions_document,
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
MOST_SESSIONS = 10_000
"""In one answer."""
_ALL: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Resource:
    """What a path shows."""

    show: Callable[[HttpRequest], HttpResponse]
    """May block its greenlet."""
    is_private: bool = False
    """Whether ``status.allow_users`` says who may see it."""


class StatusResources:
    """The pages of one agent."""

    def __init__(
        self, agent: Agent, reloader: Reloader, recent: RecentEvents, started_at: float, *,
        is_started: Callable[[], bool], is_draining: Callable[[], bool],
        predecessors: Callable[[], Sequence[JsonObject]] = tuple,
    ) -> None:  # fmt: skip
        """``predecessors``: what is known of the processes that an upgrade has left with their sessions."""
        self._predecessors = predecessors
        self._agent = agent
        self._reloader = reloader
        self._recent = recent
        self._started_at = started_at
        self._is_started = is_started
        self._is_draining = is_draining
        self._threads = Threads(1)
        self.hub_lag = HubLag()
        self._resources = {
            "/": Resource(lambda _: self._page(), is_private=True),
            "/livez": Resource(lambda _: _page(health.OK)),
            "/startupz": Resource(lambda _: _page(health.OK if is_started() else health.STARTING)),
            "/readyz": Resource(lambda request: _page(self._readiness(request.query.get("require", "")))),
            "/metrics": Resource(lambda _: self._metrics(), is_private=True),
            "/status.json": Resource(lambda _: self._json(self.status()), is_private=True),
            "/sessions.json": Resource(lambda request: self._json(self.sessions(request.query)), is_private=True),
        }

    def find(self, path: str) -> Resource | None:
        """What the path shows; None if nothing."""
        if path.startswith(READY_PREFIX):
            return Resource(lambda _: _page(self._readiness_of(path.removeprefix(READY_PREFIX))))
        return self._resources.get(path)

    @property
    def paths(self) -> list[str]:
        return list(self._resources)

    @property
    def get_handlers(self) -> Mapping[str, Callable[[], JsonObject]]:
        """What commands are shown, by the path of the control socket's URL."""
        return {
            "/status": self.status,
            "/sessions": self.sessions,
            "/readiness": self.readiness,
            "/config": lambda: config_document(self._reloader),
            "/preview": lambda: reload_document(self._reloader.preview()),
        }

    def status(self) -> JsonObject:
        """What ``pomagent status --json`` prints. Blocks its greenlet."""
        shown = document(self._agent, self._reloader, self._started_at, self._predecessors(), give_way)
        shown["is_draining"] = self._is_draining()
        shown["events"] = [event_document(note) for note in self._recent.latest(EVENTS_SHOWN)]
        return shown

    def sessions(self, query: Mapping[str, str] = _ALL) -> JsonObject:
        """What ``pomagent sessions --json`` prints; ``limit`` of the query is how many at most. Blocks its greenlet."""
        limit = query.get("limit", "")
        wanted = int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 9 else MOST_SESSIONS
        return sessions_document(self._agent, min(wanted, MOST_SESSIONS), self._predecessors(), give_way)

    def readiness(self) -> JsonObject:
        """What ``pomagent wait`` asks for: of each route, whether a client may expect to be served. Blocks."""
        return {
            "is_ready": self._obstacle() is None,
            "routes": [readiness_document(state) for state in self._states()],
        }

    def _page(self) -> HttpResponse:
        kind, body, headers = self._threads.call(_as_page, self.status())
        return HttpResponse(HTTPStatus.OK, body, kind, headers)

    def _json(self, shown: JsonObject) -> HttpResponse:
        return HttpResponse(HTTPStatus.OK, self._threads.call(_as_json, shown), "application/json")

    def _readiness(self, require: str) -> Health:
        return self._obstacle() or health.readiness(self._states() if require else (), require)

    def _readiness_of(self, name: str) -> Health:
        found = [route_status(route, self._agent) for route in self._routes if route.name == name]
        return self._obstacle() or health.readiness_of({state.name: state for state in found}, name)

    def _obstacle(self) -> Health | None:
        if self._is_draining():
            return health.DRAINING
        return None if self._is_started() else health.STARTING

    @property
    def _routes(self) -> Sequence[Route]:
        settings = self._reloader.current
        return settings.routes if settings else ()

    def _states(self) -> list[RouteStatus]:
        """Of all routes. Blocks its greenlet."""
        return [route_status(route, self._agent) for route in in_batches(self._routes, give_way)]

    def _metrics(self) -> HttpResponse:
        facts = take_snapshot(
            self._agent, self._reloader, started_at=self._started_at, is_draining=self._is_draining(),
            hub_lag=self.hub_lag.seconds.now, give_way=give_way,
        )  # fmt: skip
        kind, body = self._threads.call(_written, facts)
        return HttpResponse(HTTPStatus.OK, body, kind)


def _as_json(shown: JsonObject) -> bytes:
    return json.dumps(shown).encode()


def _as_page(shown: JsonObject) -> tuple[str, bytes, Mapping[str, str]]:
    from pomagent.admin.status import page  # noqa: PLC0415 - here, in a thread, and only if somebody looks

    return "text/html; charset=utf-8", page.rendered(shown), page.headers()


def _written(facts: Snapshot) -> tuple[str, bytes]:
    from pomagent.admin.status import metrics  # noqa: PLC0415 - 0.1 s to import: here, in a thread, and only if scraped

    return metrics.CONTENT_TYPE, metrics.written(facts)


def _page(answer: Health) -> HttpResponse:
    return text_response(answer.status, answer.text)
