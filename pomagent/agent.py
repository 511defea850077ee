"""The composition root: builds the objects of an agent, puts settings to work wholly or not at all, and drains."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import SecretStr

from pomagent.credentials.fetch import ReadToken
from pomagent.credentials.token import Token
from pomagent.errors import BindError, ConfigError, Problem
from pomagent.forwarder import Forwarder
from pomagent.gateway.gateways import Gateways
from pomagent.listeners.fd_store import FdStore
from pomagent.listeners.listeners import Listeners, Prepared
from pomagent.listeners.port_owner import owner_of
from pomagent.listeners.quarantine import Quarantine
from pomagent.log.logger import Logger, LogLevel
from pomagent.log.verbosity import Verbosity
from pomagent.pool.reserves import Reserves
from pomagent.reload.plan import Plan
from pomagent.revocation import Revocation
from pomagent.routes.running_routes import RunningRoutes
from pomagent.runtime.greenlets import GreenletReuse
from pomagent.runtime.sd_notify import Notifier
from pomagent.runtime.threads import Threads
from pomagent.sessions.client import Client
from pomagent.sessions.context import SessionContext
from pomagent.sessions.ends import DRAINED, End
from pomagent.sessions.facts import SessionFacts
from pomagent.sessions.fair_share import FairShare
from pomagent.sessions.session_limit import SessionLimit
from pomagent.sessions.user_names import Users
from pomagent.settings import Credential, ListenAddress, Route, Settings
from pomagent.transport.sock_diag import SockDiag, open_if_possible

CRASHED = "a bug ended the session; please report it, with the lines above"


class Agent:
    """Runs the routes of one set of settings at a time."""

    def __init__(
        self, log: Logger, level: LogLevel | Verbosity, read_token: ReadToken, store: FdStore | None = None
    ) -> None:
        self._level = level
        self._greenlets = GreenletReuse()
        self.gateways = Gateways(read_token, log, self._renew)
        self.reserves = Reserves(self.gateways, log, self._greenlets)
        self._diag = open_if_possible()
        self._session_limit = SessionLimit(0, "agent.max_sessions")
        self.users = Users()
        context = SessionContext(self._session_limit, FairShare(), self._log_sessions, self.users, self._greenlets)
        self.running = RunningRoutes(self.gateways, self.reserves, context, self._diag, log)
        self.listeners = Listeners(store or FdStore(Notifier({}), (), log), log)
        self._threads = Threads(1)  # reads /proc to find the owner of a busy address
        self._settings: Settings | None = None
        self._quarantine = Quarantine(self.listeners, self._enabled_routes, self._connect, self._name_owners, log)
        self._revocation = Revocation(self.forwarders, self.gateways.token_of, log)

    # --- settings -------------------------------------------------------------------------------------------------

    def apply(self, new: Settings, plan: Plan) -> None:
        """Put settings to work, or raise and change nothing. Blocks. Raises ConfigError.

        ``plan`` leads there from the settings at work. At the start, a busy address costs its own route only; later
        it rejects the settings.
        """
        contexts = self.gateways.prepare(new)
        prepared = self._bind(new)
        try:
            self.gateways.adopt(new, contexts)
        except Exception:
            self.listeners.rollback(prepared)
            raise
        # Only a bug fails after this point, and nothing switches until every listener has its route.
        self._settings = new
        self.reserves.keep_only({route.gateway for route in new.routes})
        self.listeners.commit(prepared)
        self._level.set(new.agent.log_level)
        self._session_limit.resize(new.agent.max_sessions)
        with self.running.changing(plan, new):
            for route in new.enabled_routes:
                self._connect(route)
            self.listeners.close_unused(new.enabled_routes)
        unbound = {route.name for route in new.enabled_routes if self.running.get(route.name) is None}
        self._quarantine.update(unbound, prepared.failures)
        self._revocation.follow(new)

    def _bind(self, new: Settings) -> Prepared:
        """Bind the new addresses, except those that quarantined routes retry. Blocks. Raises ConfigError."""
        waiting = {
            route.name: route.listen for route in self._enabled_routes() if route.name in self._quarantine.reasons
        }
        routes = [route for route in new.enabled_routes if route.listen != waiting.get(route.name)]
        prepared = self.listeners.prepare(routes, all_routes=new.enabled_routes)
        if not prepared.failures:
            return prepared
        self._name_owners(prepared.failures)
        if self._settings is not None:
            self.listeners.rollback(prepared)
            raise ConfigError(
                [new.problem(f"routes.{name}.listen", str(error)) for name, error in prepared.failures.items()]
            )
        return prepared

    def _name_owners(self, failures: dict[str, BindError]) -> None:
        """Add to each error which process has the address. Blocks."""
        for name, owner in self._threads.call(_owners_of, failures).items():
            failures[name].held_by(owner)

    def _enabled_routes(self) -> tuple[Route, ...]:
        return self._settings.enabled_routes if self._settings else ()

    def _connect(self, route: Route) -> None:
        """Hand the route's clients to its forwarder, unless it has no listener because it is quarantined."""
        listener = self.listeners.of(route)
        if listener is not None:
            listener.deliver_to(route.name, self.running.get_or_start(route).accept)

    def _log_sessions(self) -> str:
        return self._settings.agent.log_sessions if self._settings else "all"

    def serve_once(self, settings: Settings, client: Client) -> str:
        """Serve one client on the only route, without a listener. Blocks. Raises ConfigError.

        Returns why the session failed, or an empty string.
        """
        self.gateways.adopt(settings, self.gateways.prepare(settings))
        self._session_limit.resize(1)
        session = self.running.get_or_start(settings.routes[0]).serve(client, "stdio")
        session.join()
        return CRASHED if session.has_crashed else str(session.value or "")

    # --- tokens ---------------------------------------------------------------------------------------------------

    @property
    def tokens(self) -> list[Token]:
        """The tokens of the credentials in use."""
        return self.gateways.tokens

    def take_token(self, credential: Credential, fresh: SecretStr) -> None:
        """Use a login's token for every route of its credential, and retry those that wait for it. Does not block."""
        for token in [token for token in self.tokens if token.credential == credential]:
            is_first = token.value is None
            token.replace(fresh)
            if is_first:  # a later one calls ``renew`` itself
                self._renew(credential)

    def drop_token(self, credential: Credential) -> None:
        """Stop using a credential's token, and close the warm tunnels that it opened. Does not block."""
        for token in [token for token in self.tokens if token.credential == credential]:
            token.drop()
            self._renew(credential)

    def _renew(self, credential: Credential) -> None:
        self.running.renew(credential)

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes of the settings at work, including disabled ones."""
        return self._settings.routes if self._settings else ()

    @property
    def waits_for(self) -> tuple[Problem, ...]:
        """Credentials and certificates that the settings at work cannot use yet."""
        return self._settings.waits_for if self._settings else ()

    @property
    def diag(self) -> SockDiag | None:
        """Finds the owner of a local connection's other end. None if the kernel does not support that."""
        return self._diag

    @property
    def generation(self) -> int:
        """Number of settings that have been applied."""
        return self.running.generation

    def forwarder(self, name: str) -> Forwarder | None:
        """Return the forwarder of a running route."""
        return self.running.get(name)

    def forwarders(self) -> list[Forwarder]:
        """Return all forwarders, including those of removed routes that still have sessions."""
        return self.running.all

    def listen_address(self, name: str) -> ListenAddress:
        """Return where a running route listens, with the port that the kernel chose. In a drain: as configured."""
        forwarder = self.running.get(name)
        if forwarder is None:
            raise KeyError(name)
        listener = self.listeners.of(forwarder.route)
        return listener.address if listener is not None else forwarder.route.listen

    @property
    def session_count(self) -> int:
        return self.running.session_count

    def running_sessions(self) -> list[tuple[str, SessionFacts]]:
        """Return every session with the name of its route."""
        return self.running.running_sessions()

    @property
    def bound_count(self) -> int:
        """Number of routes that listen."""
        return len(self.running.current)

    @property
    def quarantined(self) -> dict[str, str]:
        """Routes that could not be bound, with the reason."""
        return dict(self._quarantine.reasons)

    # --- the end --------------------------------------------------------------------------------------------------

    def stop_accepting(self, *, to_successor: bool = False) -> None:
        """Leave all listeners and close warm tunnels. Sessions go on, and accepted clients still get a tunnel."""
        self._quarantine.close()
        self.listeners.stop(to_successor=to_successor)
        self.running.drain()

    def finish(self, timeout_s: float, end: End = DRAINED) -> int:
        """Wait for all sessions, end those left after ``timeout_s``, and return their number. Blocks."""
        ended_count = self.running.finish(timeout_s, end)
        self._greenlets.close()
        self._revocation.close()
        self.gateways.close()
        self.users.close()
        if self._diag is not None:
            self._diag.close()
        return ended_count

    def abort(self) -> None:
        """End all sessions now. Does not block."""
        for forwarder in self.forwarders():
            forwarder.stop_sessions(DRAINED)

    def mend_sockets(self) -> None:
        """Bind the Unix addresses again whose files were removed or replaced. Blocks for a moment."""
        for route in self._enabled_routes():
            problem = self.listeners.mend(route)
            if (forwarder := self.running.get(route.name)) is not None:
                forwarder.unreachable = problem

    def retry(self, names: Collection[str] | None = None) -> None:
        """End the waits after failures of these routes, or of all. Does not block."""
        routes = [route for route in self._enabled_routes() if names is None or route.name in names]
        self.gateways.retry(routes)
        self.reserves.retry({route.gateway for route in routes})
        for route in routes:
            self._quarantine.retry(route.name)
            if (forwarder := self.running.get(route.name)) is not None:
                forwarder.pool.retry_now()


def _owners_of(failures: dict[str, BindError]) -> dict[str, str]:
    return {name: owner for name, error in failures.items() if (owner := owner_of(error.address))}
