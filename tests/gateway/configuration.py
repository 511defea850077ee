"""Envoy's configuration, with which it answers CONNECT as a Pomerium edge does. Pure: values in, JSON-able values out.

Listener (``listener.py``), clusters and routes are separate resources, so that a running edge can be given new ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gateway.ports import LOOPBACK

Json = dict[str, Any]
Address = tuple[str, int]

AUTHORIZE = "authorize"
IDENTITY = "identity"
STAT_PREFIX = "ingress"
ROUTE_TABLE = "main"
CONNECT_TIMEOUT = "10s"  # to a destination. Pomerium has no setting for it
BUFFER_BYTES = 32_768
EXTENSIONS = "type.googleapis.com/envoy.extensions"


@dataclass(frozen=True)
class Route:
    """One TCP route of the edge: where its tunnels lead, and what its operator set."""

    upstream: Address
    public: bool = False  # needs no credential
    idle_timeout_s: float = 0
    max_connections: int | None = None  # circuit breaker. Further CONNECTs wait, then overflow
    source: str = ""  # the address to connect from. "": whichever the kernel takes
    connect_enabled: bool = True  # False: the route exists and refuses CONNECT with 403


def bootstrap(directory: Path) -> Json:
    """The file that Envoy starts with: everything else is read, and watched, in the same directory."""
    return {
        "node": {"id": "test-gateway", "cluster": "test-gateway"},
        "admin": {"address": socket_address((LOOPBACK, 0))},
        "dynamic_resources": {
            "lds_config": file_source(directory / "listeners.json"),
            "cds_config": file_source(directory / "clusters.json"),
        },
    }


def file_source(path: Path) -> Json:
    """A resource file that Envoy reads again whenever another one is renamed into its place."""
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}


def clusters(routes: Mapping[str, Route], authorizer_port: int, identity_port: int) -> list[Json]:
    """The authorizer, the identity service, and one upstream for each route."""
    own = [_authorizer_cluster(authorizer_port), _cluster(IDENTITY, (LOOPBACK, identity_port))]
    return [*own, *(_route_cluster(*item) for item in routes.items())]


def route_table(routes: Mapping[str, Route]) -> Json:
    """One virtual host per route, named exactly by its HOST:PORT, and one for the gateway's own paths."""
    return {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": ROUTE_TABLE,
        "virtual_hosts": [*(_virtual_host(*item) for item in routes.items()), _own_paths()],
    }


def _virtual_host(destination: str, route: Route) -> Json:
    action: Json = {
        "cluster": destination,
        "timeout": "0s",
        "idle_timeout": duration(route.idle_timeout_s),
        "auto_host_rewrite": True,
    }
    if route.connect_enabled:
        action["upgrade_configs"] = [{"upgrade_type": "connect", "connect_config": {}}]
    entry = {"match": {"connect_matcher": {}}, "route": action}
    entry |= _authorized(internal=False, public=route.public, route_id=destination)
    return {"name": destination, "domains": [destination], "routes": [entry]}


def _own_paths() -> Json:
    """Pomerium serves its own endpoints on every host name. They see to logins themselves."""
    health = {"match": {"path": "/healthz"}, "direct_response": {"status": 200}}
    identity = {"match": {"prefix": "/.pomerium/"}, "route": {"cluster": IDENTITY}}
    routes = [entry | _authorized(internal=True) for entry in (health, identity)]
    return {"name": "catch-all", "domains": ["*"], "routes": routes}


def _authorized(*, internal: bool, public: bool = False, route_id: str = "") -> Json:
    """The part of a route that the authorizer gets."""
    context = {"internal": str(internal).lower(), "public": str(public).lower(), "route_id": route_id}
    kind = f"{EXTENSIONS}.filters.http.ext_authz.v3.ExtAuthzPerRoute"
    settings = {"@type": kind, "check_settings": {"context_extensions": context}}
    return {"typed_per_filter_config": {"ext_authz": settings}}


def _authorizer_cluster(port: int) -> Json:
    options = f"{EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": options, "explicit_http_config": {"http2_protocol_options": {}}}
    return _cluster(AUTHORIZE, (LOOPBACK, port)) | {"typed_extension_protocol_options": {options.split("/")[1]: http2}}


def _route_cluster(destination: str, route: Route) -> Json:
    cluster = _cluster(destination, route.upstream) | {"per_connection_buffer_limit_bytes": BUFFER_BYTES}
    if route.source:
        cluster["upstream_bind_config"] = {"source_address": {"address": route.source, "port_value": 0}}
    if route.max_connections is not None:
        limits = {"max_connections": route.max_connections, "max_pending_requests": 1}
        cluster["circuit_breakers"] = {"thresholds": [limits]}
    return cluster


def _cluster(name: str, address: Address) -> Json:
    endpoint = {"endpoint": {"address": socket_address(address)}}
    return {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def extension(name: str, kind: str, settings: Json | None = None) -> Json:
    """One of Envoy's plug-ins, with its settings."""
    return {"name": name, "typed_config": {"@type": kind, **(settings or {})}}


def socket_address(address: Address) -> Json:
    """An address as Envoy writes it."""
    host, port = address
    return {"socket_address": {"address": host, "port_value": port}}


def duration(seconds: float) -> str:
    """A duration as Envoy writes it."""
    return f"{seconds:g}s"
