"""One route while it runs: its pool and its sessions, also while the route changes or is removed."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Container, Iterator
from dataclasses import replace

import gevent
from gevent.pool import Group

from pomagent.errors import CredentialRejected, PoolClosed, RoutePaused, TunnelError
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
"""Seconds between two checks of the sessions' limits: no limit needs a finer step."""
ABORT_TIMEOUT_S = 3.0
"""Maximum seconds that sessions get to close both sides in order after a request to end."""

MakePool = Callable[[Route, RouteHistory, Logger], Pool]


class Forwarder:
    """Serves the clients of one route. The listener that accepts them belongs to the agent."""

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
        """Whether new clients are refused."""
        self._session_limit = SessionLimit(route.max_sessions)
        self._sessions: dict[Task, Session] = {}
        self._checker = Group()
        self.history = RouteHistory(route, self._log, context.clock)
        self.pool = make_pool(route, self.history, self._log)
        self.counts = SessionCounts()
        self.unreachable = ""
        """Why no client reaches the listener of the route, or empty."""
        self._route_context = RouteContext(
            route, self.lease, self.history.note_greeting, self.history.note_close, self._session_limit, self.counts,
            self._log, generation,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<Forwarder {self.route.name}: {len(self._sessions)} sessions, {self.pool!r}>"

    @property
    def session_count(self) -> int:
        return len(self._sessions)

    @property
    def numbers(self) -> set[int]:
        """The numbers of the running sessions, as the log shows them."""
        return {session.number for session in self._sessions.values()}

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes up and down of the running sessions."""
        moved = [session.moved for session in self._sessions.values()]
        return sum(up for up, _ in moved), sum(down for _, down in moved)

    @property
    def running(self) -> list[SessionFacts]:
        """The running sessions, in the order in which they began."""
        return [session.facts for session in self._sessions.values()]

    @property
    def state(self) -> State:
        """The route's state, as the status shows it."""
        return state_of(self.facts)

    @property
    def last_error(self) -> TunnelError | None:
        """The failure of the last dial, or None after one that succeeded."""
        return self.pool.last_error

    @property
    def facts(self) -> RouteFacts:
        """The facts that decide the route's state."""
        status = self.pool.status
        return RouteFacts(
            is_bound=not self.unreachable, is_draining=self._is_draining, is_paused=self.is_paused,
            error=self.last_error, is_breaker_closed=status.breaker is BreakerState.CLOSED,
            still_serves=status.still_serves, is_overrun=bool(self.overrun), has_succeeded=status.has_succeeded,
            is_short=status.is_short, keeps_warm=self.pool.warm_target.level != "off", is_warm=status.is_warm,
        )  # fmt: skip

    @property
    def overrun(self) -> str:
        """A sentence on the session limit that refuses clients now, or empty if none does."""
        both = (self._session_limit, self._context.session_limit)
        return next((session_limit.why_full for session_limit in both if session_limit.is_overrun), "")

    def start(self) -> None:
        """Begin to keep tunnels warm. Does not block."""
        self.pool.start()

    def accept(self, sock: socket.socket, peer: str) -> None:
        """Serve a connection that was accepted for this route. Does not block."""
        self.serve(LocalClient(sock, self._diag), peer)

    def serve(self, client: Client, peer: str) -> Task:
        """Serve a client. The task's value is a sentence on why that failed, or empty on success. Does not block."""
        number = next(self._numbers)
        session = Session(client, peer, number, self._route_context, self._context)
        task = self._context.greenlets.begin(session.run, f"session {number}", self._forget)
        self._sessions[task] = session
        if not self._checker:
            self._checker.spawn(self._check_sessions).name = f"route {self.route.name}: limits"
        return task

    def lease(self, deadline: Deadline) -> Tunnel:
        """Return a tunnel of the present pool, also if the pool is replaced meanwhile. Blocks. See ``Pool.lease``."""
        if self.is_paused:
            raise RoutePaused(self.route.name)
        while True:
            pool = self.pool
            try:
                return pool.lease(deadline)
            except PoolClosed:
                if pool is self.pool:
                    raise

    def follow(self, route: Route, generation: int, *, retire: bool = True) -> None:
        """Apply changed settings. Sessions go on under the old ones. Warm tunnels do only without ``retire``."""
        self.route = route
        self._route_context = replace(self._route_context, route=route, generation=generation)
        self._session_limit.resize(route.max_sessions)
        self.history.follow(route)
        if retire:
            self.renew()

    def renew(self) -> None:
        """Replace the pool and its warm tunnels. Clients that wait move to the new pool. Does not block."""
        old, self.pool = self.pool, self._make_pool(self.route, self.history, self._log)
        if self._is_draining:
            self.pool.drain(Reason.DRAINED)
        elif self.is_paused:
            self.pool.drain(Reason.UNWANTED)
        self.pool.start()
        old.close(Reason.STALE)

    def pause(self) -> None:
        """Refuse new clients and keep nothing warm. Sessions and clients that wait go on. Does not block."""
        self.is_paused = True
        self.pool.drain(Reason.UNWANTED)

    def resume(self) -> None:
        """Serve new clients again. Does not block."""
        if self.is_paused:
            self.is_paused = False
            self.renew()

    @property
    def presented(self) -> list[Presented]:
        """What was presented to the gateway for the sessions' tunnels."""
        return [session.presented for session in self._sessions.values() if session.presented is not None]

    def end_revoked(self, revoked: Presented) -> int:
        """End the sessions that were opened with a revoked token, and return their number. Does not block."""
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
        """Close warm tunnels, and report this error until the gateway accepts a token. Does not block."""
        self.pool.distrust(error)

    def trust(self) -> None:
        """Serve clients again after a rejection: the gateway accepts the same token again. Does not block."""
        self.pool.trust()

    def drain(self) -> None:
        """Close what is warm and keep nothing warm. Clients that were accepted still get tunnels. Does not block."""
        self._is_draining = True
        self.pool.drain(Reason.DRAINED)

    def finish(self, timeout_s: float, end: End) -> int:
        """Let sessions finish, end the rest after ``timeout_s``, and return how many these were. Blocks."""
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
        """End all sessions, or those with these numbers, and return their numbers. Does not block.

        Each session logs its own line.
        """
        chosen = [session for session in self._sessions.values() if numbers is None or session.number in numbers]
        for session in chosen:
            session.stop(end)
        return [session.number for session in chosen]

    def _wait_for_sessions(self, timeout_s: float) -> None:
        """Wait until the last session has ended, or until the timeout. Blocks."""
        deadline = Deadline(timeout_s)
        while self._sessions and not deadline.is_over:
            next(iter(self._sessions)).join(deadline.remaining_s)

    def _forget(self, task: Task) -> None:
        self._sessions.pop(task, None)

    def _check_sessions(self) -> None:
        """Check the limits until the last session has ended, so that an idle route needs no greenlet. Blocks."""
        while self._sessions:
            gevent.sleep(CHECK_EVERY_S)
            now = self._context.clock()
            for session in list(self._sessions.values()):
                try:
                    session.check(now)
                except Exception:  # noqa: BLE001 - a session never hurts its route: the others still have limits
                    gevent.get_hub().handle_error(gevent.getcurrent(), *sys.exc_info())
