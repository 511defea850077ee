"""The routes that run, each with its forwarder, and the removed ones until their sessions end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from gevent.pool import Group

from pomagent.forwarder import Forwarder
from pomagent.gateway.gateways import Gateways
from pomagent.log.logger import Logger
from pomagent.pool import Pool, PoolContext, RouteHistory
from pomagent.pool.reserves import Reserves
from pomagent.reload.plan import Plan, diff
from pomagent.sessions.context import SessionContext
from pomagent.sessions.ends import REMOVED, End
from pomagent.sessions.facts import SessionFacts
from pomagent.settings import Credential, Route, Settings
from pomagent.transport.sock_diag import SockDiag


class RunningRoutes:
    """Owns every forwarder from its start to the end of its last session."""

    def __init__(
        self, gateways: Gateways, reserves: Reserves, context: SessionContext, diag: SockDiag | None, log: Logger
    ) -> None:
        self._gateways = gateways
        self._reserves = reserves
        self._context = context
        self._diag = diag
        self._log = log
        self._session_numbers = count(1)
        self.generation = 0
        """Number of settings that have been applied."""
        self._is_half_changed = False
        self._by_name: dict[str, Forwarder] = {}
        self._removed: dict[Forwarder, None] = {}
        self._draining: set[Forwarder] = set()
        self._finishing = Group()

    def get(self, name: str) -> Forwarder | None:
        """Return the forwarder of a running route."""
        return self._by_name.get(name)

    @property
    def current(self) -> list[Forwarder]:
        """The forwarders of the enabled routes that listen."""
        return list(self._by_name.values())

    @property
    def all(self) -> list[Forwarder]:
        """All forwarders, including those of removed routes that still have sessions."""
        return [*self._by_name.values(), *self._removed]

    # --- changes --------------------------------------------------------------------------------------------------

    @contextmanager
    def changing(self, plan: Plan, new: Settings) -> Iterator[None]:
        """Carry out a plan. In the block, the routes get their listeners. Stopped routes are drained after it.

        The block may block. A reload that is killed in it leaves the sessions of stopped routes to ``finish``.
        """
        if self._is_half_changed:  # by a bug: the plan does not know what had been changed before
            plan = diff(Settings(new.path, routes=tuple(forwarder.route for forwarder in self.current)), new)
        self._is_half_changed = True
        self.generation += 1
        for route in plan.stopped:
            if (forwarder := self._by_name.pop(route.name, None)) is not None:
                self._removed[forwarder] = None
        for replaced in plan.replaced:
            if (forwarder := self._by_name.get(replaced.new.name)) is not None:
                forwarder.follow(replaced.new, self.generation, retire=replaced.retires_tunnels)
        yield
        self._drain_removed(new.drain.timeout_s)
        self._is_half_changed = False

    def _drain_removed(self, timeout_s: float) -> None:
        for forwarder in [forwarder for forwarder in self._removed if forwarder not in self._draining]:
            self._draining.add(forwarder)
            forwarder.drain()
            greenlet = self._finishing.spawn(forwarder.finish, timeout_s, REMOVED)
            greenlet.name = f"removed route {forwarder.route.name}"
            greenlet.rawlink(lambda _, removed=forwarder: self._forget(removed))

    def _forget(self, forwarder: Forwarder) -> None:
        self._removed.pop(forwarder, None)
        self._draining.discard(forwarder)

    def get_or_start(self, route: Route) -> Forwarder:
        """Return the route's forwarder, which is started if there is none. Does not block."""
        forwarder = self._by_name.get(route.name)
        if forwarder is None:
            forwarder = self._by_name[route.name] = Forwarder(
                route, self._make_pool, self._context, self._diag, self._log, self._session_numbers, self.generation
            )
            forwarder.start()
        return forwarder

    def _make_pool(self, route: Route, history: RouteHistory, log: Logger) -> Pool:
        gateways = self._gateways
        context = PoolContext(route, history, gateways.health_of(route.gateway), log, self._context.greenlets)
        return Pool(context, gateways.opener(route, log), self._reserves.of(route.gateway))

    def renew(self, credential: Credential) -> None:
        """Replace the pools of a credential that has another token: what is warm was opened with the old one."""
        for forwarder in self._by_name.values():
            if forwarder.route.credential == credential:
                forwarder.renew()

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def session_count(self) -> int:
        return sum(forwarder.session_count for forwarder in self.all)

    def running_sessions(self) -> list[tuple[str, SessionFacts]]:
        """Return every session with the name of its route."""
        return [(forwarder.route.name, facts) for forwarder in self.all for facts in forwarder.running]

    @property
    def is_warm(self) -> bool:
        """Whether every pool is full, or has failed to be."""
        pools = [forwarder.pool for forwarder in self._by_name.values() if not forwarder.is_paused]
        return all(pool.warm_count >= pool.target_count or pool.status.failure_count for pool in pools)

    @property
    def paused(self) -> list[str]:
        """Names of the routes that turn new clients away."""
        return [name for name, forwarder in self._by_name.items() if forwarder.is_paused]

    # --- the end --------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Close warm tunnels. Sessions go on, and clients that were accepted still get a tunnel. Does not block."""
        for forwarder in self._by_name.values():
            forwarder.drain()

    def finish(self, timeout_s: float, end: End) -> int:
        """Wait for all sessions, end those left after ``timeout_s``, and return their number. Blocks."""
        group = Group()
        jobs = [group.spawn(forwarder.finish, timeout_s, end) for forwarder in self.all]
        group.join()
        self._finishing.kill()
        return sum(job.value or 0 for job in jobs)
