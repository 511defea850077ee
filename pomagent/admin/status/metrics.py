"""Writes facts as Prometheus reads them. Takes 0.1 s for 1,000 routes: not for the hub, and imported off it."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pomagent.admin.status.snapshot import CredentialSnapshot, GatewaySnapshot, RouteSnapshot, Snapshot
from pomagent.runtime.histogram import Distribution

CONTENT_TYPE = CONTENT_TYPE_LATEST


def written(facts: Snapshot) -> bytes:
    """The text of one scrape. Blocks for /proc."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(facts))
    registry.register(ProcessCollector(registry=None))  # descriptors, memory, CPU, under their usual names
    return generate_latest(registry)


class _Collector:
    """What the library asks for its families."""

    def __init__(self, facts: Snapshot) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        yield from _of_agent(self._facts)
        yield from _of_hub(self._facts)
        yield from _of_routes(self._facts.routes)
        yield from _of_pools(self._facts.routes)
        yield from _of_tunnels(self._facts.routes)
        yield from _of_gateways(self._facts.gateways)
        yield from _of_credentials(self._facts.credentials)


def _of_agent(facts: Snapshot) -> Iterator[Metric]:
    info = GaugeMetricFamily("pomagent_build_info", "1; what runs.", labels=["version", "python"])
    info.add_metric([facts.version, platform.python_version()], 1)
    yield info
    yield GaugeMetricFamily("pomagent_start_time_seconds", "When it started, since the epoch.", facts.started_at)
    yield GaugeMetricFamily("pomagent_draining", "1 after it was told to stop.", facts.is_draining)
    yield GaugeMetricFamily("pomagent_config_generation", "How often settings were put to work.", facts.generation)
    yield GaugeMetricFamily(
        "pomagent_config_last_reload_successful", "0 while the files are not what runs, because they were rejected.",
        facts.is_up_to_date,
    )  # fmt: skip
    yield GaugeMetricFamily(
        "pomagent_config_last_applied_timestamp_seconds", "When settings were last put to work, since the epoch.",
        facts.applied_at,
    )  # fmt: skip
    reloads = CounterMetricFamily(
        "pomagent_config_reloads", "Looks at the files, by what came of them.", labels=["result"]
    )
    for result in ("applied", "unchanged", "rejected"):
        reloads.add_metric([result], facts.reloads.get(result, 0))
    yield reloads


def _of_hub(facts: Snapshot) -> Iterator[Metric]:
    lag = HistogramMetricFamily("pomagent_hub_lag_seconds", "How much later than asked for a timer was called.")
    _add(lag, [], facts.hub_lag)
    yield lag
    yield GaugeMetricFamily("pomagent_greenlets", "That live and came after the start.", facts.greenlets)


def _of_routes(routes: Iterable[RouteSnapshot]) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "pomagent_route_state", "1 for the state that the route is in.", labels=["route", "state"]
    )
    ready = _gauge("pomagent_route_ready", "1 if a client may expect to be served.")
    active = _gauge("pomagent_sessions_active", "Sessions that run.")
    closed = CounterMetricFamily(
        "pomagent_sessions", "Sessions that are over, by the side that ended them and why.",
        labels=["route", "side", "reason"],
    )  # fmt: skip
    refused = CounterMetricFamily(
        "pomagent_sessions_refused",
        "Clients that got no tunnel, by why or what would help.",
        labels=["route", "reason"],
    )
    moved = CounterMetricFamily(
        "pomagent_session_bytes", "Relayed: up is to the gateway, down from it.", labels=["route", "direction"]
    )
    waits = HistogramMetricFamily("pomagent_session_wait_seconds", "Until a client had its tunnel.", labels=["route"])
    for route in routes:
        name = route.state.name
        if route.waits is not None:
            _add(waits, [name], route.waits)
        state.add_metric([name, route.state.state], 1)
        ready.add_metric([name], route.state.is_ready)
        active.add_metric([name], route.sessions)
        for (side, reason), count in route.closed.items():
            closed.add_metric([name, side, reason], count)
        for reason, count in {"limit": 0, **route.refused}.items():  # it has an alert, and no increase without a 0
            refused.add_metric([name, reason], count)
        moved.add_metric([name, "up"], route.bytes_up)
        moved.add_metric([name, "down"], route.bytes_down)
    yield from (state, ready, active, closed, refused, moved, waits)


def _of_pools(routes: Iterable[RouteSnapshot]) -> Iterator[Metric]:
    warm = _gauge("pomagent_pool_warm", "Tunnels, or TLS connections, that wait for a client.")
    target = _gauge("pomagent_pool_target", "How many should.")
    stock = GaugeMetricFamily(
        "pomagent_pool_stock", "Ready tunnels, TLS connections without one, and dials under way.",
        labels=["route", "state"],
    )  # fmt: skip
    waiting = _gauge("pomagent_pool_waiting", "Clients that wait for a tunnel.")
    breaker = _gauge("pomagent_breaker_open", "1 while dials have failed so often that the pool waits.")
    for route in routes:
        name = route.state.name
        warm.add_metric([name], route.warm)
        target.add_metric([name], route.target)
        for what, count in route.stock.items():
            stock.add_metric([name, what], count)
        waiting.add_metric([name], route.waiting)
        breaker.add_metric([name], route.is_breaker_open)
    yield from (warm, target, stock, waiting, breaker)


def _of_tunnels(routes: Sequence[RouteSnapshot]) -> Iterator[Metric]:
    yield _counter(
        "pomagent_pool_takes", "Clients served with a warm tunnel, over a warm tls connection, or cold.", "kind",
        ((route.state.name, route.takes) for route in routes),
    )  # fmt: skip
    yield _counter(
        "pomagent_pool_discards", "Tunnels closed without having served anybody, by why.", "reason",
        ((route.state.name, route.discards) for route in routes),
    )  # fmt: skip
    yield _counter(
        "pomagent_tunnel_failures", "Dials that failed, by the kind of error.", "error",
        ((route.state.name, route.failures) for route in routes),
    )  # fmt: skip


def _counter(name: str, text: str, label: str, counts: Iterable[tuple[str, Mapping[str, int]]]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=["route", label])
    for route, counted in counts:
        for key, count in counted.items():
            family.add_metric([route, key], count)
    return family


def _of_gateways(gateways: Iterable[GatewaySnapshot]) -> Iterator[Metric]:
    reachable = _gateway_gauge("pomagent_gateway_reachable", "1 if the last handshake came to its end.")
    expiry = _gateway_gauge(
        "pomagent_gateway_certificate_expiry_timestamp_seconds", "When its certificate ends, since the epoch."
    )
    offset = _gateway_gauge("pomagent_gateway_clock_offset_seconds", "What its clock is ahead of this host's.")
    lost = CounterMetricFamily(
        "pomagent_gateway_tunnels_lost", "Warm ones that ended by themselves.", labels=["gateway"]
    )
    answers = CounterMetricFamily("pomagent_connect_answers", "To CONNECTs, by status.", labels=["gateway", "code"])
    phases = HistogramMetricFamily(
        "pomagent_dial_phase_seconds", "Steps of a dial that led to the next one: dns, tcp, tls, connect.",
        labels=["gateway", "phase"],
    )  # fmt: skip
    for gateway in gateways:
        name = gateway.address
        known = ((reachable, gateway.is_reachable), (expiry, gateway.certificate_expires_at))
        for family, value in (*known, (offset, gateway.clock_offset_s)):
            if value is not None:
                family.add_metric([name], value)
        lost.add_metric([name], gateway.tunnels_lost)
        for code, count in gateway.answers.items():
            answers.add_metric([name, code], count)
        for phase, seconds in gateway.phases.items():
            _add(phases, [name, phase], seconds)
    yield from (reachable, expiry, offset, lost, answers, phases)


def _of_credentials(credentials: Iterable[CredentialSnapshot]) -> Iterator[Metric]:
    expiry = GaugeMetricFamily(
        "pomagent_credential_expiry_timestamp_seconds", "When the token ends by its own claim, since the epoch; "
        "absent if it does not say.", labels=["credential"],
    )  # fmt: skip
    has_token = GaugeMetricFamily("pomagent_credential_available", "1 if there is a token.", labels=["credential"])
    failing = GaugeMetricFamily(
        "pomagent_credential_failing", "1 if its source could not be read last.", labels=["credential"]
    )
    for credential in credentials:
        if credential.expires_at is not None:
            expiry.add_metric([credential.name], credential.expires_at)
        has_token.add_metric([credential.name], credential.has_token)
        failing.add_metric([credential.name], credential.is_failing)
    yield from (expiry, has_token, failing)


def _add(family: HistogramMetricFamily, labels: Sequence[str], seconds: Distribution) -> None:
    bounds = [*map(str, seconds.bounds), "+Inf"]
    family.add_metric(labels, list(zip(bounds, accumulate(seconds.counts), strict=True)), seconds.total)


def _gateway_gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=["gateway"])


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=["route"])
