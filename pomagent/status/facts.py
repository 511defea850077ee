"""The numbers of one moment, gathered on the hub within milliseconds; written down elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from pomagent import __version__
from pomagent.agent import Agent
from pomagent.credentials import Token
from pomagent.forwarder import Forwarder
from pomagent.pool.breaker import BreakerState
from pomagent.reload import Reloader
from pomagent.settings import Route
from pomagent.status.states import RouteState, route_state

ROUTES_IN_A_ROW = 100
"""Before other greenlets get their turn."""


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """One enabled route."""

    state: RouteState
    sessions: int = 0
    closed: Mapping[tuple[str, str], int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    warm: int = 0
    target: int = 0
    waiting: int = 0
    takes: Mapping[str, int] = field(default_factory=dict)
    discards: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    is_breaker_open: bool = False


@dataclass(frozen=True, slots=True)
class CredentialFacts:
    """One credential in use; never its token."""

    name: str
    source: str
    has_token: bool
    is_failing: bool
    """Whether its source could not be read last."""
    expires_at: float | None
    """Seconds since the epoch, by the token's own claim."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is counted, measured or known."""

    version: str
    started_at: float
    is_draining: bool
    generation: int
    reloads: Mapping[str, int]
    is_up_to_date: bool
    """Whether the files, as they were read last, are what runs."""
    applied_at: float
    """When settings were last put to work, in seconds since the epoch."""
    routes: tuple[RouteFacts, ...]
    credentials: tuple[CredentialFacts, ...]


def gather(
    agent: Agent, reloader: Reloader, *, started_at: float, is_draining: bool, give_way: Callable[[], None]
) -> Facts:
    """What is so now. Blocks only in ``give_way``, which lets others run between routes."""
    settings = reloader.current
    return Facts(
        version=__version__,
        started_at=started_at,
        is_draining=is_draining,
        generation=agent.generation,
        reloads=dict(reloader.results),
        is_up_to_date=reloader.last is None or reloader.last.result != "rejected",
        applied_at=reloader.applied_at,
        routes=tuple(_routes(settings.enabled_routes if settings else (), agent, give_way)),
        credentials=tuple(_credentials(agent.tokens)),
    )


def _routes(routes: tuple[Route, ...], agent: Agent, give_way: Callable[[], None]) -> Iterator[RouteFacts]:
    for number, route in enumerate(routes, 1):
        forwarder = agent.forwarder(route.name)
        state = route_state(route, agent)
        yield RouteFacts(state) if forwarder is None else _route(state, forwarder)
        if number % ROUTES_IN_A_ROW == 0:
            give_way()


def _route(state: RouteState, forwarder: Forwarder) -> RouteFacts:
    pool, counts, memory = forwarder.pool, forwarder.counts, forwarder.memory
    moved_up, moved_down = forwarder.moved
    return RouteFacts(
        state, forwarder.sessions, dict(counts.closed), dict(counts.refused), counts.bytes_up + moved_up,
        counts.bytes_down + moved_down, pool.warm, pool.target, pool.waiting,
        dict(memory.takes), dict(memory.discards), dict(memory.failures), pool.breaker is not BreakerState.CLOSED,
    )  # fmt: skip


def _credentials(tokens: list[Token]) -> Iterator[CredentialFacts]:
    """One for each name: of several tokens under one name, such as during a reload, the one that ends first."""
    by_name: dict[str, Token] = {}
    for token in sorted(tokens, key=lambda token: token.life.expires_at or float("inf")):
        by_name.setdefault(token.credential.name, token)
    for name, token in sorted(by_name.items()):
        has_token, is_failing = token.value is not None, bool(token.problem)
        yield CredentialFacts(name, token.credential.source, has_token, is_failing, token.life.expires_at)
