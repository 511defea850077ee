"""The composition root: builds every object, puts settings to work, drains."""

from __future__ import annotations

from itertools import count

import gevent
from gevent.pool import Group

from pomagent import events
from pomagent.credentials import ReadToken
from pomagent.errors import BindError, ConfigError, Problem
from pomagent.forwarder import Forwarder
from pomagent.gateways import Gateways
from pomagent.listener import Listener
from pomagent.log import Logger, LogLevel
from pomagent.places import Places
from pomagent.plan import Plan, diff, listen_key
from pomagent.pool import Pool
from pomagent.relay import DRAINED, REMOVED, End, new_scratch
from pomagent.session import Client, Surroundings
from pomagent.settings import ListenAddress, Route, Settings
from pomagent.sockdiag import SockDiag

REBIND_FIRST_S, REBIND_MAX_S = 1.0, 30.0
"""Between tries to bind the address of a quarantined route."""

ListenKey = tuple[ListenAddress, str]


class Agent:
    """Everything that runs, for one set of settings at a time."""

    def __init__(self, log: Logger, level: LogLevel, read_token: ReadToken) -> None:
        self._log = log
        self._level = level
        self._gateways = Gateways(read_token, log)
        self._diag = _sock_diag()
        self._group = Group()
        self._numbers = count(1)
        self._places = Places(0)
        self._surroundings = Surroundings(self._places, new_scratch(), self._wished_sessions)
        self._listeners: dict[ListenKey, Listener] = {}
        self._forwarders: dict[str, Forwarder] = {}
        self._quarantined: dict[str, str] = {}
        self._leaving: set[Forwarder] = set()
        self._settings: Settings | None = None
        self.generation = 0

    # --- settings -------------------------------------------------------------------------------------------------

    def apply(self, new: Settings) -> Plan:
        """Put settings to work, wholly or, if it raises, not at all. Blocks. Raises ConfigError.

        At start an address that is not available costs its own route only; later it rejects the settings.
        """
        plan = diff(self._settings, new)
        contexts = self._gateways.prepare(new)
        fresh = self._bind(new)
        # From here on nothing fails, and nothing switches until every listener has its route.
        self.generation += 1
        self._settings = new
        self._gateways.adopt(new, contexts)
        self._level.set(new.agent.log_level)
        self._places.resize(new.agent.max_sessions)
        self._listeners.update(fresh)
        names = {route.name for route in _enabled(new)}
        self._quarantined = {name: why for name, why in self._quarantined.items() if name in names}
        stopped = [self._forwarders.pop(route.name) for route in plan.stopped if route.name in self._forwarders]
        for replaced in plan.replaced:
            if replaced.new.name in self._forwarders:
                self._forwarders[replaced.new.name].follow(replaced.new, self.generation)
        for route in _enabled(new):
            self._connect(route)
        self._close_unused_listeners(new)
        for forwarder in stopped:
            self._retire(forwarder)
        return plan

    def _bind(self, new: Settings) -> dict[ListenKey, Listener]:
        fresh: dict[ListenKey, Listener] = {}
        problems: list[Problem] = []
        for route in _enabled(new):
            key = listen_key(route)
            if key in self._listeners or (route.name in self._quarantined and self._is_known(route)):
                continue
            try:
                fresh[key] = Listener(route.listen, self._log.bind(route=route.name))
            except BindError as error:
                problems.append(Problem(new.path, 0, f"routes.{route.name}.listen", str(error)))
                if self._settings is None:
                    self._quarantine(route, str(error))
        if problems and self._settings is not None:
            for listener in fresh.values():
                listener.close()
            raise ConfigError(problems)
        return fresh

    def _is_known(self, route: Route) -> bool:
        return self._settings is not None and route in self._settings.routes

    def _connect(self, route: Route) -> None:
        """Give the route's listener to its forwarder, either of which may be new."""
        listener = self._listeners.get(listen_key(route))
        if listener is None:
            return  # quarantined
        self._quarantined.pop(route.name, None)
        forwarder = self._forwarders.get(route.name)
        if forwarder is None:
            forwarder = self._forwarders[route.name] = self._make_forwarder(route)
            forwarder.start()
        listener.give_to(forwarder.accept)

    def _make_forwarder(self, route: Route) -> Forwarder:
        return Forwarder(
            route, self._make_pool, self._surroundings, self._diag, self._log, self._numbers, self.generation
        )

    def _make_pool(self, route: Route, log: Logger) -> Pool:
        return Pool(route, self._gateways.connector(route, log), log)

    def _close_unused_listeners(self, new: Settings) -> None:
        used = {listen_key(route) for route in _enabled(new)}
        for key in [key for key in self._listeners if key not in used]:
            self._listeners.pop(key).close()

    def _retire(self, forwarder: Forwarder) -> None:
        """Let the sessions of a removed route finish, within the limit of a drain."""
        assert self._settings is not None
        forwarder.drain()
        self._leaving.add(forwarder)
        timeout_s = self._settings.drain.timeout_s
        greenlet = self._group.spawn(forwarder.finish, timeout_s, REMOVED)
        greenlet.name = f"removed route {forwarder.route.name}"
        greenlet.rawlink(lambda _: self._leaving.discard(forwarder))

    def serve_once(self, settings: Settings, client: Client) -> str:
        """Serve one client on the only route, without a listener; return why it failed, or nothing. Blocks.

        Raises ConfigError.
        """
        self._gateways.adopt(settings, self._gateways.prepare(settings))
        self._places.resize(1)
        forwarder = self._make_forwarder(settings.routes[0])
        self._forwarders[forwarder.route.name] = forwarder
        forwarder.start()
        session = forwarder.serve(client, "stdio")
        session.join()
        failure: str = session.get()
        return failure

    # --- quarantine -----------------------------------------------------------------------------------------------

    def _quarantine(self, route: Route, problem: str) -> None:
        self._quarantined[route.name] = problem
        self._log.error(events.ROUTE_QUARANTINED, route=route.name, problems=[problem])
        self._group.spawn(self._rebind, route).name = f"quarantined route {route.name}"

    def _rebind(self, route: Route) -> None:
        """Try again and again until the address is free or the settings have changed it."""
        pause_s = REBIND_FIRST_S
        while True:
            gevent.sleep(pause_s)
            pause_s = min(REBIND_MAX_S, pause_s * 2)
            if route.name not in self._quarantined or not self._is_known(route):
                return
            try:
                listener = Listener(route.listen, self._log.bind(route=route.name))
            except BindError as error:
                self._log.error(
                    events.LISTENER_BIND_FAILED, route=route.name, listen=str(route.listen), error=str(error),
                    retry_in_ms=round(pause_s * 1000),
                )  # fmt: skip
                continue
            self._listeners[listen_key(route)] = listener
            self._connect(route)
            return

    # --- what it is doing -----------------------------------------------------------------------------------------

    def listen_address(self, name: str) -> ListenAddress:
        """Where the route of that name listens: with the port that the kernel chose."""
        route = self._forwarders[name].route
        return self._listeners[listen_key(route)].address

    @property
    def sessions(self) -> int:
        return sum(forwarder.sessions for forwarder in [*self._forwarders.values(), *self._leaving])

    @property
    def bound(self) -> int:
        """How many routes listen."""
        return len(self._forwarders)

    @property
    def quarantined(self) -> dict[str, str]:
        """Routes that could not be bound, and why."""
        return dict(self._quarantined)

    def status(self) -> str:
        """The agent in one line, for ``STATUS=``."""
        states = [forwarder.state for forwarder in self._forwarders.values()] + ["quarantined"] * len(self._quarantined)
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
        warm = sum(forwarder.pool.warm for forwarder in self._forwarders.values())
        return f"{len(states)} routes: {counts}; {self.sessions} sessions; {warm} warm; generation {self.generation}"

    # --- the end --------------------------------------------------------------------------------------------------

    def stop_accepting(self) -> None:
        """Close all listeners and what is warm; sessions go on, and clients that wait still get their tunnels."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        for forwarder in self._forwarders.values():
            forwarder.drain()

    def finish(self, timeout_s: float, end: End = DRAINED) -> int:
        """Let sessions finish, end the rest after ``timeout_s``, and return how many those were. Blocks."""
        finishing = Group()
        leaving = [*self._forwarders.values(), *self._leaving]
        jobs = [finishing.spawn(forwarder.finish, timeout_s, end) for forwarder in leaving]
        finishing.join()
        self._group.kill()
        self._gateways.close()
        if self._diag is not None:
            self._diag.close()
        return sum(job.value or 0 for job in jobs)

    def abort(self) -> None:
        """End all sessions now. Does not block."""
        for forwarder in [*self._forwarders.values(), *self._leaving]:
            forwarder.stop_sessions(DRAINED)

    def retry(self) -> None:
        """Forget all waits after failures: something outside has been mended. Does not block."""
        for forwarder in self._forwarders.values():
            forwarder.pool.retry_now()

    def _wished_sessions(self) -> str:
        return self._settings.agent.log_sessions if self._settings else "all"


def _enabled(settings: Settings) -> list[Route]:
    return [route for route in settings.routes if route.enabled]


def _sock_diag() -> SockDiag | None:
    try:
        return SockDiag()
    except OSError:
        return None
