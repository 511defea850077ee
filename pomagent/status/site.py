"""Which path shows what; knows the agent and nothing of HTTP connections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import gevent

from pomagent.agent import Agent
from pomagent.reload import Reloader
from pomagent.status import health
from pomagent.status.conversation import Page, Request, text_page
from pomagent.status.facts import Facts, gather
from pomagent.status.health import Health
from pomagent.status.states import RouteState, route_state
from pomagent.threads import Threads

READY_PREFIX = "/readyz/"


@dataclass(frozen=True, slots=True)
class Resource:
    """What a path shows."""

    show: Callable[[Request], Page]
    """May block its greenlet."""
    is_private: bool = False
    """Whether ``status.allow_users`` says who may see it."""


class Site:
    """The pages of one agent."""

    def __init__(
        self, agent: Agent, reloader: Reloader, started_at: float, *, is_started: Callable[[], bool],
        is_draining: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._agent = agent
        self._reloader = reloader
        self._started_at = started_at
        self._is_started = is_started
        self._is_draining = is_draining
        self._threads = Threads(1)
        self._resources = {
            "/livez": Resource(lambda _: _page(health.OK)),
            "/startupz": Resource(lambda _: _page(health.OK if is_started() else health.STARTING)),
            "/readyz": Resource(lambda request: _page(self._readiness(request.query.get("require", "")))),
            "/metrics": Resource(lambda _: self._metrics(), is_private=True),
        }

    def find(self, path: str) -> Resource | None:
        """What the path shows; None if nothing."""
        if path.startswith(READY_PREFIX):
            return Resource(lambda _: _page(self._readiness_of(path.removeprefix(READY_PREFIX))))
        return self._resources.get(path)

    @property
    def paths(self) -> list[str]:
        return list(self._resources)

    def _readiness(self, require: str) -> Health:
        return self._obstacle() or health.readiness(list(self._states().values()), require)

    def _readiness_of(self, name: str) -> Health:
        return self._obstacle() or health.readiness_of(self._states(), name)

    def _obstacle(self) -> Health | None:
        if self._is_draining():
            return health.DRAINING
        return None if self._is_started() else health.STARTING

    def _states(self) -> Mapping[str, RouteState]:
        settings = self._reloader.current
        return {route.name: route_state(route, self._agent) for route in (settings.routes if settings else ())}

    def _metrics(self) -> Page:
        facts = gather(
            self._agent, self._reloader, started_at=self._started_at, is_draining=self._is_draining(),
            give_way=lambda: gevent.sleep(0),
        )  # fmt: skip
        kind, body = self._threads.call(_written, facts)
        return Page(HTTPStatus.OK, body, kind)


def _written(facts: Facts) -> tuple[str, bytes]:
    from pomagent.status import metrics  # noqa: PLC0415 - 0.1 s to import: here, in a thread, and only if scraped

    return metrics.CONTENT_TYPE, metrics.written(facts)


def _page(answer: Health) -> Page:
    return text_page(answer.status, answer.text)
