"""Formats a snapshot for Prometheus. Takes 0.1 s for 1,000 routes, so import and call it off the hub."""

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


def formatted(snapshot: Snapshot) -> bytes:
    """Return the text of one scrape. Blocks on /proc."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshot))
    registry.register(ProcessCollector(registry=None))  # descriptors, memory and CPU under their standard names
    return generate_latest(registry)


class _Collector:
    """Yields the metric families of one snapshot to the library."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        yield from _of_agent(self._snapshot)
        yield from _of_hub(self._snapshot)
        yield from _of_routes(self._snapshot.routes)
        yield from _of_pools(self._snapshot.routes)
        yield from _of_tunnels(self._snapshot.routes)
        yield from _of_gateways(self._snapshot.gateways)
        yield from _of_credentials(self._snapshot.credentials)


def _of_agent(snapshot: Snapshot) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "pomagent_build_info", "Always 1; the labels are the running versions.", labels=["version", "python"]
    )
    info.add_metric([snapshot.version, platform.python_version()], 1)
    yield info
    for name, text, value in (
        ("pomagent_start_time_seconds", "Start of the agent, in seconds since the epoch.", snapshot.started_at),
        ("pomagent_draining", "1 while the agent waits for its sessions to end before it stops.", snapshot.is_draining),
        ("pomagent_config_generation", "Number of times that settings were applied.", snapshot.generation),
        (
            "pomagent_config_last_reload_successful",
            "0 if the last reload rejected the files; the previous settings stay in effect.",
            snapshot.is_up_to_date,
        ),
        (
            "pomagent_config_last_applied_timestamp_seconds",
            "Time when settings were last applied, in seconds since the epoch.",
            snapshot.applied_at,
        ),
    ):
        yield GaugeMetricFamily(name, text, value)
    reloads = CounterMetricFamily(
        "pomagent_config_reloads", "Reloads of the configuration files, by result.", labels=["result"]
    )
    for result in ("applied", "unchanged", "rejected"):
        reloads.add_metric([result], snapshot.reloads.get(result, 0))
    yield reloads


def _of_hub(snapshot: Snapshot) -> Iterator[Metric]:
    lag = HistogramMetricFamily(
        "pomagent_hub_lag_seconds", "Delay of timers in the event loop, and so of all sessions."
    )
    _add(lag, [], snapshot.hub_lag)
    yield lag
    yield GaugeMetricFamily("pomagent_greenlets", "Live greenlets spawned after the start.", snapshot.greenlets)


def _of_routes(routes: Iterable[RouteSnapshot]) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "pomagent_route_state", "1 for the current state of the route.", labels=["route", "state"]
    )
    ready = _gauge("pomagent_route_ready", "1 if a client may expect to be served.")
    active = _gauge("pomagent_sessions_active", "Running sessions.")
    closed = CounterMetricFamily(
        "pomagent_sessions", "Ended sessions, by the side that ended them and by reason.",
        labels=["route", "side", "reason"],
    )  # fmt: skip
    refused = CounterMetricFamily(
        "pomagent_sessions_refused",
        "Clients that got no tunnel, by reason or by the kind of remedy.",
        labels=["route", "reason"],
    )
    moved = CounterMetricFamily(
        "pomagent_session_bytes", "Relayed bytes: up is to the gateway, down is from it.", labels=["route", "direction"]
    )
    waits = HistogramMetricFamily(
        "pomagent_session_wait_seconds", "Time that clients waited for a tunnel.", labels=["route"]
    )
    for route in routes:
        name = route.status.name
        if route.waits is not None:
            _add(waits, [name], route.waits)
        state.add_metric([name, route.status.state], 1)
        ready.add_metric([name], route.status.is_ready)
        active.add_metric([name], route.sessions)
        for (side, reason), count in route.closed.items():
            closed.add_metric([name, side, reason], count)
        for reason, count in {"limit": 0, **route.refused}.items():  # the alert needs a 0 before the first increase
            refused.add_metric([name, reason], count)
        moved.add_metric([name, "up"], route.bytes_up)
        moved.add_metric([name, "down"], route.bytes_down)
    yield from (state, ready, active, closed, refused, moved, waits)


def _of_pools(routes: Iterable[RouteSnapshot]) -> Iterator[Metric]:
    warm = _gauge("pomagent_pool_warm", "Warm tunnels, or TLS connections, that wait for a client.")
    target = _gauge("pomagent_pool_target", "Number of tunnels, or TLS connections, that the pool should keep warm.")
    stock = GaugeMetricFamily(
        "pomagent_pool_stock", "Warm tunnels, warm TLS connections, and dials in progress.",
        labels=["route", "state"],
    )  # fmt: skip
    waiting = _gauge("pomagent_pool_waiting", "Clients waiting for a tunnel.")
    breaker = _gauge("pomagent_breaker_open", "1 while the pool waits before it dials again, after too many failures.")
    for route in routes:
        name = route.status.name
        warm.add_metric([name], route.warm)
        target.add_metric([name], route.target)
        for what, count in route.stock.items():
            stock.add_metric([name, what], count)
        waiting.add_metric([name], route.waiting)
        breaker.add_metric([name], route.is_breaker_open)
    yield from (warm, target, stock, waiting, breaker)


def _of_tunnels(routes: Sequence[RouteSnapshot]) -> Iterator[Metric]:
    yield _counter(
        "pomagent_pool_takes", "Clients served: with a warm tunnel, over a warm TLS connection (tls), or cold.", "kind",
        ((route.status.name, route.takes) for route in routes),
    )  # fmt: skip
    yield _counter(
        "pomagent_pool_discards", "Tunnels closed before a client used them, by reason.", "reason",
        ((route.status.name, route.discards) for route in routes),
    )  # fmt: skip
    yield _counter(
        "pomagent_tunnel_failures", "Failed dials, by error.", "error",
        ((route.status.name, route.failures) for route in routes),
    )  # fmt: skip


def _counter(name: str, text: str, label: str, counts: Iterable[tuple[str, Mapping[str, int]]]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=["route", label])
    for route, counted in counts:
        for key, count in counted.items():
            family.add_metric([route, key], count)
    return family


def _of_gateways(gateways: Iterable[GatewaySnapshot]) -> Iterator[Metric]:
    reachable = _gateway_gauge("pomagent_gateway_reachable", "1 if the last TLS handshake succeeded.")
    expiry = _gateway_gauge(
        "pomagent_gateway_certificate_expiry_timestamp_seconds",
        "Expiry of the certificate, in seconds since the epoch.",
    )
    offset = _gateway_gauge("pomagent_gateway_clock_offset_seconds", "Gateway clock minus local clock, in seconds.")
    lost = CounterMetricFamily(
        "pomagent_gateway_tunnels_lost", "Warm tunnels that the gateway or the network closed.", labels=["gateway"]
    )
    answers = CounterMetricFamily(
        "pomagent_connect_answers", "Answers to CONNECT, by HTTP status.", labels=["gateway", "code"]
    )
    phases = HistogramMetricFamily(
        "pomagent_dial_phase_seconds", "Duration of each successful step of a dial: dns, tcp, tls, connect.",
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
        "pomagent_credential_expiry_timestamp_seconds", "Expiry of the token, in seconds since the epoch; "
        "absent if the token names none.", labels=["credential"],
    )  # fmt: skip
    has_token = GaugeMetricFamily("pomagent_credential_available", "1 if a token is available.", labels=["credential"])
    failing = GaugeMetricFamily(
        "pomagent_credential_failing", "1 if the last attempt to read the token's source failed.", labels=["credential"]
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
