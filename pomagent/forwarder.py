"""A route while it runs: its pool, its sessions, and what becomes of them when the route changes or goes."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Container, Iterator
from dataclasses import replace

import gevent
from gevent.pool import Group

from pomagent.errors import CredentialRejected, PoolClosed, RoutePaused
from pomagent.gateway.tunnel import Presented, Tunnel
from pomagent.log.logger import Logger
from pomagent.pool import Pool, RouteHistory
from pomagent.pool.breaker import BreakerState
from pomagent.protocol.lifecycle import Reason
from pomagent.route_state import RouteFacts, State, state_of
from pomagent.runtime.deadline import Deadline
from pomagent.runtime.greenlets import Task
from pomagent.sessions.client import Client, LocalClient
from pomagent.sessions.context import RouteContext, SessionContext
from pomagent.sessions.counters import SessionCounts
from pomagent.sessions.ends import REVOKED, End
from pomagent.sessions.facts import SessionFacts
from pomagent.sessions.session import Session
from pomagent.sessions.session_limit import SessionLimit
from pomagent.settings import Route
from pomagent.transport.sock_diag import SockDiag

CHECK_EVERY_S = 1.0
"""How often the sessions' limits are looked at: finer than any of them needs."""

ABORT_TIMEOUT_S = 3.0
"""For sessions that were told to end to say good-bye to both sides."""

MakePool = Callable[[Route, RouteHistory, Logger], Pool]


class Forwarder:
    """Serves the clients of one route; the listener that brings them is somebody else's."""

    def __init__(
        self, route: Route, make_pool: MakePool, context: SessionContext, diag: SockDiag | None, log: Logger,
        numbers: Iterator[int], generation: int,
    ) -> None:  # fmt: skip
        self.route = route
        self._make_pool = make_pool
        self._context = context
        self._diag = diag
        self._log = log.bind(route=route.name)
        self._numbers = numbers
        self._is_draining = False
        self.is_paused = False
        """Whether new clients are turned away."""
        self._session_limit = SessionLimit(route.max_sessions)
        self._sessions: dict[Task, Session] = {}
        self._checker = Group()
        self.memory = RouteHistory(route, context.clock())
        self.pool = make_pool(route, self.memory, self._log)
        self.counts = SessionCounts()
        self._route_context = RouteContext(
            route, self.lease, self.heard, self.was_ended, self._session_limit, self.counts, self._log, generation
        )

    def __repr__(self) -> str:
        return f"<Forwarder {self.route.name}: {len(self._sessions)} sessions, {self.pool!r}>"

    @property
    def session_count(self) -> int:
        return len(self._sessions)

    @property
    def numbers(self) -> set[int]:
        """Of its sessions, as the log has them."""
        return {session.number for session in self._sessions.values()}

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes up and down of the sessions that run."""
        moved = [session.moved for session in self._sessions.values()]
        return sum(up for up, _ in moved), sum(down for _, down in moved)

    @property
    def running(self) -> list[SessionFacts]:
        """Its sessions, in the order of their coming."""
        return [session.facts for session in self._sessions.values()]

    @property
    def state(self) -> State:
        """The route's state in the words of the status."""
        return state_of(self.facts)

    @property
    def facts(self) -> RouteFacts:
        """Everything that decides the route's state."""
        status = self.pool.status
        return RouteFacts(
            is_draining=self._is_draining, is_paused=self.is_paused, error=self.pool.last_error,
            is_breaker_closed=status.breaker is BreakerState.CLOSED, still_serves=status.still_serves,
            is_overrun=bool(self.overrun), has_succeeded=status.has_succeeded, is_short=status.is_short,
            keeps_warm=self.pool.keeping.level != "off", is_warm=status.is_warm,
        )  # fmt: skip

    @property
    def overrun(self) -> str:
        """Which limit of sessions keeps clients out now, in a sentence; empty if none does."""
        both = (self._session_limit, self._context.session_limit)
        return next((session_limit.why_full for session_limit in both if session_limit.is_overrun), "")

    def start(self) -> None:
        """Begin to keep tunnels warm."""
        self.pool.start()

    def accept(self, sock: socket.socket, peer: str) -> None:
        """Take over a connection that was accepted for this route. Does not block."""
        self.serve(LocalClient(sock, self._diag), peer)

    def serve(self, client: Client, peer: str) -> Task:
        """Serve a client; the value of its task is why it failed, empty if it did not. Does not block."""
        number = next(self._numbers)
        session = Session(client, peer, number, self._route_context, self._context)
        task = self._context.greenlets.begin(session.run, f"session {number}", self._forget)
        self._sessions[task] = session
        if not self._checker:
            self._checker.spawn(self._check_sessions).name = f"route {self.route.name}: limits"
        return task

    def lease(self, deadline: Deadline) -> Tunnel:
        """A tunnel of the pool that is in charge, even if that changes meanwhile. Blocks. See ``Pool.lease``."""
        if self.is_paused:
            raise RoutePaused(self.route.name)
        while True:
            pool = self.pool
            try:
                return pool.lease(deadline)
            except PoolClosed:
                if pool is self.pool:
                    raise

    def heard(self, first: bytes, after_s: float) -> None:
        """The server spoke first in a session: see ``sessions.context.RouteContext``."""
        self.pool.heard(first, after_s)

    def was_ended(self, idle_s: float, age_s: float) -> None:
        """The other side ended a session's tunnel: see ``sessions.context.RouteContext``."""
        self.pool.was_ended(idle_s, age_s)

    def follow(self, route: Route, generation: int, *, retire: bool = True) -> None:
        """Go on under changed settings: sessions live on under the old ones, warm tunnels only without ``retire``."""
        self.route = route
        self._route_context = replace(self._route_context, route=route, generation=generation)
        self._session_limit.resize(route.max_sessions)
        self.memory.follow(route, self._context.clock())
        if retire:
            self.renew()

    def renew(self) -> None:
        """Replace the pool and what it has warm; clients that wait go over to the new one. Does not block."""
        old, self.pool = self.pool, self._make_pool(self.route, self.memory, self._log)
        if self._is_draining:
            self.pool.drain(Reason.DRAINED)
        elif self.is_paused:
            self.pool.drain(Reason.UNWANTED)
        self.pool.start()
        old.close(Reason.STALE)

    def pause(self) -> None:
        """Turn new clients away and keep nothing warm; sessions, and clients that wait, go on. Does not block."""
        self.is_paused = True
        self.pool.drain(Reason.UNWANTED)

    def resume(self) -> None:
        """Let clients in again. Does not block."""
        if self.is_paused:
            self.is_paused = False
            self.renew()

    @property
    def presented(self) -> list[Presented]:
        """What the gateway was shown for the tunnels of the sessions."""
        return [session.presented for session in self._sessions.values() if session.presented is not None]

    def end_revoked(self, revoked: Presented) -> int:
        """End the sessions that were opened with a token, and return how many those were. Does not block."""
        ended = 0
        for session in list(self._sessions.values()):
            presented = session.presented
            if presented is None or presented.token != revoked.token:
                continue
            if presented.gateway.address == revoked.gateway.address:
                session.stop(REVOKED)
                ended += 1
        return ended

    def distrust(self, error: CredentialRejected) -> None:
        """Keep nothing that was opened with the present token, until the gateway accepts one. Does not block."""
        self.renew()
        self.pool.distrust(error)

    def drain(self) -> None:
        """Close what is warm and keep nothing warm any more; who was accepted already still gets a tunnel."""
        self._is_draining = True
        self.pool.drain(Reason.DRAINED)

    def finish(self, timeout_s: float, end: End) -> int:
        """Let the sessions finish, end those left after ``timeout_s``, and return how many those were. Blocks."""
        self._wait_for_sessions(timeout_s)
        left = self.session_count
        self.stop_sessions(end)
        self._wait_for_sessions(ABORT_TIMEOUT_S)
        for task in self._sessions:
            task.kill()
        self._wait_for_sessions(ABORT_TIMEOUT_S)
        self.pool.close(Reason.DRAINED)
        self._checker.kill()
        return left

    def stop_sessions(self, end: End, numbers: Container[int] | None = None) -> list[int]:
        """End all sessions now, or those of these numbers; return the numbers of those. Does not block.

        Each gets its own line in the log.
        """
        chosen = [session for session in self._sessions.values() if numbers is None or session.number in numbers]
        for session in chosen:
            session.stop(end)
        return [session.number for session in chosen]

    def _wait_for_sessions(self, timeout_s: float) -> None:
        """Until the last one is over, or the time is. Blocks."""
        deadline = Deadline(timeout_s)
        while self._sessions and not deadline.is_over:
            next(iter(self._sessions)).join(deadline.remaining_s)

    def _forget(self, task: Task) -> None:
        self._sessions.pop(task, None)

    def _check_sessions(self) -> None:
        """Until the last session is over: idle routes cost no greenlet."""
        while self._sessions:
            gevent.sleep(CHECK_EVERY_S)
            now = self._context.clock()
            for session in list(self._sessions.values()):
                try:
                    session.check(now)
                except Exception:  # noqa: BLE001 - a session never hurts its route: the others still have limits
                    gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())
