"""Collects all numbers at one moment, on the hub within milliseconds. ``metrics`` formats them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from pomagent import __version__
from pomagent.admin.status.batches import in_batches
from pomagent.admin.status.greenlet_count import count_greenlets
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
    """Numbers of one enabled route."""

    status: RouteStatus
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
    """Warm tunnels, warm TLS connections and dials in progress, by state."""
    waits: Distribution | None = None
    """Seconds that clients waited for a tunnel, None before the first client."""


@dataclass(frozen=True, slots=True)
class GatewaySnapshot:
    """Numbers of one gateway address in use."""

    address: str
    is_reachable: bool | None
    certificate_expires_at: float | None
    clock_offset_s: float | None
    tunnels_lost: int
    answers: Mapping[str, int]
    phases: Mapping[str, Distribution]


@dataclass(frozen=True, slots=True)
class CredentialSnapshot:
    """One credential in use, without its token."""

    name: str
    source: str
    has_token: bool
    is_failing: bool
    """Whether the last read of its source failed."""
    expires_at: float | None
    """Seconds since the epoch, from the token's own claim."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is exported as a metric."""

    version: str
    started_at: float
    is_draining: bool
    generation: int
    reloads: Mapping[str, int]
    is_up_to_date: bool
    """Whether the files as last read are in effect."""
    applied_at: float
    """When settings were last applied, in seconds since the epoch."""
    routes: tuple[RouteSnapshot, ...]
    gateways: tuple[GatewaySnapshot, ...]
    credentials: tuple[CredentialSnapshot, ...]
    hub_lag: Distribution
    greenlets: int


def take_snapshot(
    agent: Agent, reloader: Reloader, *, started_at: float, is_draining: bool, hub_lag: Distribution,
    give_way: Callable[[], None],
) -> Snapshot:  # fmt: skip
    """Return the present numbers. Blocks only in ``give_way``, which lets others run between routes."""
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
        greenlets=count_greenlets(give_way),
    )


def _routes(routes: tuple[Route, ...], agent: Agent, give_way: Callable[[], None]) -> Iterator[RouteSnapshot]:
    for route in in_batches(routes, give_way):
        forwarder = agent.forwarder(route.name)
        status = route_status(route, agent)
        yield RouteSnapshot(status) if forwarder is None else _route(status, forwarder)


def _route(status: RouteStatus, forwarder: Forwarder) -> RouteSnapshot:
    pool, counts, history = forwarder.pool, forwarder.counts, forwarder.history
    moved_up, moved_down = forwarder.moved
    stock = pool.status.warm_by_level | {"dialling": sum(pool.status.dials.values())}
    return RouteSnapshot(
        status, forwarder.session_count, dict(counts.closed), dict(counts.refused), counts.bytes_up + moved_up,
        counts.bytes_down + moved_down, pool.warm_count, pool.target_count, pool.waiting_count,
        dict(history.leases), dict(history.discards), dict(history.failures),
        pool.status.breaker is not BreakerState.CLOSED,
        stock, counts.waits.now if counts.leases else None,
    )  # fmt: skip


def _gateways(gateways: Gateways) -> Iterator[GatewaySnapshot]:
    """Yield one snapshot per address, which several tables may share."""
    health_by_address = {str(dialer.gateway.address): gateways.health_of(dialer.gateway) for dialer in gateways.dialers}
    for address, health in sorted(health_by_address.items()):
        yield _gateway(address, health)


def _gateway(address: str, health: GatewayHealth) -> GatewaySnapshot:
    phases = {phase: histogram.now for phase, histogram in health.counts.phases.items()}
    return GatewaySnapshot(
        address, health.is_reachable, health.certificate_expires_at, health.clock_offset_s, health.losses.total,
        dict(health.counts.answers), phases,
    )  # fmt: skip


def _credentials(tokens: list[Token]) -> Iterator[CredentialSnapshot]:
    """Yield one snapshot per name: of several tokens, as during a reload, the one that expires first."""
    by_name: dict[str, Token] = {}
    for token in sorted(tokens, key=lambda token: token.life.expires_at or float("inf")):
        by_name.setdefault(token.credential.name, token)
    for name, token in sorted(by_name.items()):
        has_token, is_failing = token.value is not None, bool(token.problem)
        yield CredentialSnapshot(name, token.credential.source, has_token, is_failing, token.life.expires_at)
