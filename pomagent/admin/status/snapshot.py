"""The numbers of one moment, gathered on the hub within milliseconds; written down elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from pomagent import __version__
from pomagent.admin.status.batches import in_batches
from pomagent.admin.status.greenlet_count import greenlets
from pomagent.admin.status.route_states import RouteStatus, route_status
from pomagent.agent import Agent
from pomagent.credentials.token import Token
from pomagent.forwarder import Forwarder
from pomagent.gateway.gateways import Gateways
from pomagent.gateway.health import GatewayHealth
from pomagent.pool.breaker import BreakerState
from pomagent.reload.reloader import Reloader
from pomagent.runtime.histogram import Distribution
from pomagent.settings import Route


@dataclass(frozen=True, slots=True)
class RouteSnapshot:
    """One enabled route."""

    state: RouteStatus
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
    stock: Mapping[str, int] = field(default_factory=dict)
    """What is warm and what is being dialled, by state."""
    waits: Distribution | None = None
    """Seconds until a client had its tunnel; None as long as nobody has come."""


@dataclass(frozen=True, slots=True)
class GatewaySnapshot:
    """One gateway in use, by its address."""

    address: str
    is_reachable: bool | None
    certificate_expires_at: float | None
    clock_offset_s: float | None
    tunnels_lost: int
    answers: Mapping[str, int]
    phases: Mapping[str, Distribution]


@dataclass(frozen=True, slots=True)
class CredentialSnapshot:
    """One credential in use; never its token."""

    name: str
    source: str
    has_token: bool
    is_failing: bool
    """Whether its source could not be read last."""
    expires_at: float | None
    """Seconds since the epoch, by the token's own claim."""


@dataclass(frozen=True, slots=True)
class Snapshot:
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
    routes: tuple[RouteSnapshot, ...]
    gateways: tuple[GatewaySnapshot, ...]
    credentials: tuple[CredentialSnapshot, ...]
    hub_lag: Distribution
    greenlets: int


def take_snapshot(
    agent: Agent, reloader: Reloader, *, started_at: float, is_draining: bool, hub_lag: Distribution,
    give_way: Callable[[], None],
) -> Snapshot:  # fmt: skip
    """What is so now. Blocks only in ``give_way``, which lets others run between routes."""
    settings = reloader.current
    return Snapshot(
        version=__version__,
        started_at=started_at,
        is_draining=is_draining,
        generation=agent.generation,
        reloads=dict(reloader.results),
        is_up_to_date=reloader.last is None or reloader.last.result != "rejected",
        applied_at=reloader.applied_at,
        routes=tuple(_routes(settings.enabled_routes if settings else (), agent, give_way)),
        gateways=tuple(_gateways(agent.gateways)),
        credentials=tuple(_credentials(agent.tokens)),
        hub_lag=hub_lag,
        greenlets=greenlets(give_way),
    )


def _routes(routes: tuple[Route, ...], agent: Agent, give_way: Callable[[], None]) -> Iterator[RouteSnapshot]:
    for route in in_batches(routes, give_way):
        forwarder = agent.forwarder(route.name)
        state = route_status(route, agent)
        yield RouteSnapshot(state) if forwarder is None else _route(state, forwarder)


def _route(state: RouteStatus, forwarder: Forwarder) -> RouteSnapshot:
    pool, counts, memory = forwarder.pool, forwarder.counts, forwarder.memory
    moved_up, moved_down = forwarder.moved
    stock = pool.status.stock | {"dialling": sum(pool.status.dialling.values())}
    return RouteSnapshot(
        state, forwarder.session_count, dict(counts.closed), dict(counts.refused), counts.bytes_up + moved_up,
        counts.bytes_down + moved_down, pool.warm_count, pool.target, pool.waiting,
        dict(memory.takes), dict(memory.discards), dict(memory.failures),
        pool.status.breaker is not BreakerState.CLOSED,
        stock, counts.waits.now if counts.leases else None,
    )  # fmt: skip


def _gateways(gateways: Gateways) -> Iterator[GatewaySnapshot]:
    """One for each address: several tables may lead to one."""
    watches = {str(dialer.gateway.address): gateways.watch(dialer.gateway) for dialer in gateways.dialers}
    for address, watch in sorted(watches.items()):
        yield _gateway(address, watch)


def _gateway(address: str, watch: GatewayHealth) -> GatewaySnapshot:
    phases = {phase: histogram.now for phase, histogram in watch.counts.phases.items()}
    return GatewaySnapshot(
        address, watch.is_reachable, watch.certificate_expires_at, watch.clock_offset_s, watch.losses.total,
        dict(watch.counts.answers), phases,
    )  # fmt: skip


def _credentials(tokens: list[Token]) -> Iterator[CredentialSnapshot]:
    """One for each name: of several tokens under one name, such as during a reload, the one that ends first."""
    by_name: dict[str, Token] = {}
    for token in sorted(tokens, key=lambda token: token.life.expires_at or float("inf")):
        by_name.setdefault(token.credential.name, token)
    for name, token in sorted(by_name.items()):
        has_token, is_failing = token.value is not None, bool(token.problem)
        yield CredentialSnapshot(name, token.credential.source, has_token, is_failing, token.life.expires_at)
