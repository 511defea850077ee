"""The composition root: builds every object, puts settings to work, drains."""

from __future__ import annotations

from collections.abc import Collection
from itertools import count

from gevent.pool import Group
from pydantic import SecretStr

from pomagent.credentials.token import ReadToken, Token
from pomagent.errors import BindError, ConfigError
from pomagent.forwarder import Forwarder
from pomagent.gateway.gateways import Gateways
from pomagent.listeners.fd_store import FdStore
from pomagent.listeners.listeners import Listeners, Prepared
from pomagent.listeners.port_owner import owner_of
from pomagent.listeners.quarantine import Quarantine
from pomagent.log.logger import Logger, LogLevel
from pomagent.log.verbosity import Verbosity
from pomagent.pool import Pool, RouteHistory
from pomagent.pool.reserves import Reserves
from pomagent.reload.plan import Plan, diff
from pomagent.revocation import Revocation
from pomagent.runtime.greenlets import GreenletReuse
from pomagent.runtime.sd_notify import Notifier
from pomagent.runtime.threads import Threads
from pomagent.sessions.client import Client
from pomagent.sessions.context import SessionContext
from pomagent.sessions.ends import DRAINED, REMOVED, End
from pomagent.sessions.facts import SessionFacts
from pomagent.sessions.fair_share import FairShare
from pomagent.sessions.session_limit import SessionLimit
from pomagent.sessions.user_names import Users
from pomagent.settings import Credential, ListenAddress, Route, Settings
from pomagent.transport.sock_diag import SockDiag, open_if_possible

CRASHED = "a bug ended the session; please report it, with the lines above"


class Agent:
    """Everything that runs, for one set of settings at a time."""

    def __init__(
        self, log: Logger, level: LogLevel | Verbosity, read_token: ReadToken, store: FdStore | None = None
    ) -> None:
        self._log = log
        self._level = level
        self._greenlets = GreenletReuse()
        self._gateways = Gateways(read_token, log, self._greenlets, self._renew)
        self._reserves = Reserves(self._gateways, log, self._greenlets)
        self._diag = open_if_possible()
        self._group = Group()
        self._numbers = count(1)
        self._session_limit = SessionLimit(0, "agent.max_sessions")
        self.users = Users()
        self._context = SessionContext(
            self._session_limit, FairShare(), self._wished_sessions, self.users, self._greenlets
        )
        self.listeners = Listeners(store or FdStore(Notifier({}), (), log), log)
        self._threads = Threads(1)  # /proc, after an address was taken
        self._forwarders: dict[str, Forwarder] = {}
        self._leaving: set[Forwarder] = set()
        self._settings: Settings | None = None
        self._quarantine = Quarantine(self.listeners, self._enabled_routes, self._connect, self._name_holders, log)
        self._recheck = Revocation(self.forwarders, self._gateways.token_of, log)
        self.generation = 0

    # --- settings -------------------------------------------------------------------------------------------------

    def apply(self, new: Settings) -> Plan:
        """Put settings to work, wholly or, if it raises, not at all. Blocks. Raises ConfigError.

        At start an address that is not available costs its own route only; later it rejects the settings.
        """
        plan = diff(self._settings, new)
        contexts = self._gateways.prepare(new)
        prepared = self._bind(new)
        # From here on nothing fails, and nothing switches until every listener has its route.
        self.generation += 1
        self._settings = new
        self._gateways.adopt(new, contexts)
        self._reserves.keep_only({route.gateway for route in new.routes})
        self.listeners.commit(prepared)
        self._level.set(new.agent.log_level)
        self._session_limit.resize(new.agent.max_sessions)
        stopped = [self._forwarders.pop(route.name) for route in plan.stopped if route.name in self._forwarders]
        for replaced in plan.replaced:
            if replaced.new.name in self._forwarders:
                self._forwarders[replaced.new.name].follow(
                    replaced.new, self.generation, retire=replaced.retires_tunnels
                )
        for route in new.enabled_routes:
            self._connect(route)
        self._leaving.update(stopped)  # a stop of the agent from here on waits for their sessions as well
        self.listeners.close_unused(new.enabled_routes)
        for forwarder in stopped:
            self._retire(forwarder)
        without = {route.name for route in new.enabled_routes if route.name not in self._forwarders}
        self._quarantine.update(without, prepared.failures)
        self._recheck.follow(new)
        return plan

    def _bind(self, new: Settings) -> Prepared:
        """Bind the addresses that are new; what a quarantined route waits for is left to its retries."""
        waiting = {
            route.name: route.listen for route in self._enabled_routes() if route.name in self._quarantine.reasons
        }
        routes = [route for route in new.enabled_routes if route.listen != waiting.get(route.name)]
        prepared = self.listeners.prepare(routes, all_routes=new.enabled_routes)
        if not prepared.failures:
            return prepared
        self._name_holders(prepared.failures)
        if self._settings is not None:
            self.listeners.rollback(prepared)
            raise ConfigError(
                [new.problem(f"routes.{name}.listen", str(error)) for name, error in prepared.failures.items()]
            )
        return prepared

    def _name_holders(self, failures: dict[str, BindError]) -> None:
        """Say of each address who has it. Blocks."""
        for name, holder in self._threads.call(_holders_of, failures).items():
            failures[name].held_by(holder)

    def _enabled_routes(self) -> tuple[Route, ...]:
        return self._settings.enabled_routes if self._settings else ()

    def _connect(self, route: Route) -> None:
        """Give the route's listener, if it has one, to its forwarder, either of which may be new."""
        listener = self.listeners.of(route)
        if listener is None:
            return  # quarantined
        forwarder = self._forwarders.get(route.name)
        if forwarder is None:
            forwarder = self._forwarders[route.name] = self._make_forwarder(route)
            forwarder.start()
        listener.deliver_to(route.name, forwarder.accept)

    def _make_forwarder(self, route: Route) -> Forwarder:
        return Forwarder(route, self._make_pool, self._context, self._diag, self._log, self._numbers, self.generation)

    def _renew(self, credential: Credential) -> None:
        """Another token: what is warm was opened with the old one, and who waits for it to heal need not wait."""
        for forwarder in self._forwarders.values():
            if forwarder.route.credential == credential:
                forwarder.renew()

    def take_token(self, credential: Credential, fresh: SecretStr) -> None:
        """Put a login's token to work on every route of its credential, those that wait included. Does not block."""
        for token in [token for token in self.tokens if token.credential == credential]:
            is_first = token.value is None
            token.replace(fresh)
            if is_first:  # otherwise it has told us itself
                self._renew(credential)

    def drop_token(self, credential: Credential) -> None:
        """Present a credential's token no more, and keep nothing warm that was opened with it. Does not block."""
        for token in [token for token in self.tokens if token.credential == credential]:
            token.value = None
            self._renew(credential)

    @property
    def routes(self) -> tuple[Route, ...]:
        """Of the settings at work, the disabled ones included."""
        return self._settings.routes if self._settings else ()

    @property
    def diag(self) -> SockDiag | None:
        """Knows who holds the other end of a local connection; None where the kernel does not tell."""
        return self._diag

    @property
    def gateways(self) -> Gateways:
        """What leads to the gateways in use."""
        return self._gateways

    @property
    def reserves(self) -> Reserves:
        """What the unused routes of each gateway have in common."""
        return self._reserves

    @property
    def tokens(self) -> list[Token]:
        """The credentials in use."""
        return self._gateways.tokens

    def _make_pool(self, route: Route, memory: RouteHistory, log: Logger) -> Pool:
        to, reserve = self._gateways, self._reserves.of(route.gateway)
        return Pool(route, to.connector(route, log), memory, to.watch(route.gateway), log, self._greenlets, reserve)

    def _retire(self, forwarder: Forwarder) -> None:
        """Let the sessions of a removed route finish, within the limit of a drain."""
        assert self._settings is not None
        forwarder.drain()
        timeout_s = self._settings.drain.timeout_s
        greenlet = self._group.spawn(forwarder.finish, timeout_s, REMOVED)
        greenlet.name = f"removed route {forwarder.route.name}"
        greenlet.rawlink(lambda _: self._leaving.discard(forwarder))

    def serve_once(self, settings: Settings, client: Client) -> str:
        """Serve one client on the only route, without a listener; return why it failed, or nothing. Blocks.

        Raises ConfigError.
        """
        self._gateways.adopt(settings, self._gateways.prepare(settings))
        self._session_limit.resize(1)
        forwarder = self._make_forwarder(settings.routes[0])
        self._forwarders[forwarder.route.name] = forwarder
        forwarder.start()
        session = forwarder.serve(client, "stdio")
        session.join()
        return CRASHED if session.has_crashed else str(session.value or "")

    # --- what it is doing -----------------------------------------------------------------------------------------

    def forwarder(self, name: str) -> Forwarder | None:
        """The running route of that name."""
        return self._forwarders.get(name)

    def listen_address(self, name: str) -> ListenAddress:
        """Where the route of that name listens, with the port that the kernel chose; in a drain, where it was to."""
        route = self._forwarders[name].route
        listener = self.listeners.of(route)
        return listener.address if listener is not None else route.listen

    @property
    def session_count(self) -> int:
        return sum(forwarder.session_count for forwarder in self.forwarders())

    def running_sessions(self) -> list[tuple[str, SessionFacts]]:
        """Every session, with the name of its route."""
        return [(forwarder.route.name, facts) for forwarder in self.forwarders() for facts in forwarder.running]

    def forwarders(self) -> list[Forwarder]:
        """Every one; those of removed routes too, while they have sessions."""
        return [*self._forwarders.values(), *self._leaving]

    @property
    def bound_count(self) -> int:
        """How many routes listen."""
        return len(self._forwarders)

    @property
    def quarantined(self) -> dict[str, str]:
        """Routes that could not be bound, and why."""
        return dict(self._quarantine.reasons)

    @property
    def is_warm(self) -> bool:
        """Whether every pool has what it keeps, as far as its gateway lets it."""
        pools = [forwarder.pool for forwarder in self._forwarders.values() if not forwarder.is_paused]
        return all(pool.warm_count >= pool.target or pool.status.failures for pool in pools)

    @property
    def paused(self) -> list[str]:
        """Names of the routes that let nobody in for now."""
        return [name for name, forwarder in self._forwarders.items() if forwarder.is_paused]

    def status(self) -> str:
        """The agent in one line, for ``STATUS=``."""
        states = [forwarder.state for forwarder in self._forwarders.values()] + ["quarantined"] * len(self.quarantined)
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
        warm = sum(forwarder.pool.warm_count for forwarder in self._forwarders.values())
        return (
            f"{len(states)} routes: {counts}; {self.session_count} sessions; {warm} warm; generation {self.generation}"
        )

    # --- the end --------------------------------------------------------------------------------------------------

    def stop_accepting(self, *, to_successor: bool = False) -> None:
        """Leave all listeners and close what is warm; sessions go on, and clients that wait still get their tunnels."""
        self._quarantine.close()
        self.listeners.stop(to_successor=to_successor)
        for forwarder in self._forwarders.values():
            forwarder.drain()

    def finish(self, timeout_s: float, end: End = DRAINED) -> int:
        """Let sessions finish, end the rest after ``timeout_s``, and return how many those were. Blocks."""
        finishing = Group()
        jobs = [finishing.spawn(forwarder.finish, timeout_s, end) for forwarder in self.forwarders()]
        finishing.join()
        self._greenlets.close()
        self._group.kill()
        self._recheck.close()
        self._gateways.close()
        self.users.close()
        if self._diag is not None:
            self._diag.close()
        return sum(job.value or 0 for job in jobs)

    def abort(self) -> None:
        """End all sessions now. Does not block."""
        for forwarder in self.forwarders():
            forwarder.stop_sessions(DRAINED)

    def retry(self, names: Collection[str] | None = None) -> None:
        """Forget the waits of these routes, or of all, after failures: something was mended. Does not block."""
        routes = [route for route in self._enabled_routes() if names is None or route.name in names]
        self._gateways.retry(routes)
        self._reserves.retry({route.gateway for route in routes})
        for route in routes:
            self._quarantine.retry(route.name)
            if (forwarder := self._forwarders.get(route.name)) is not None:
                forwarder.pool.retry_now()

    def _wished_sessions(self) -> str:
        return self._settings.agent.log_sessions if self._settings else "all"


def _holders_of(failures: dict[str, BindError]) -> dict[str, str]:
    return {name: holder for name, error in failures.items() if (holder := owner_of(error.address))}
