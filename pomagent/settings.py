"""The accepted configuration as frozen facts, resolved and validated by ``config``.

Every reference is resolved (a route carries its gateway and credential), every path is absolute, every host is
lower-case and IDNA-encoded. Every ``auto`` is decided except those of ``protocol`` and ``warm``, which depend on the
server. Equal settings have equal effects: ``reload.plan`` compares nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import SecretStr

from pomagent.errors import Problem

Level: TypeAlias = Literal["tunnel", "tls", "off"]
"""What a route keeps ready: whole tunnels, TLS connections to the gateway, or nothing."""
Warm: TypeAlias = Literal["auto"] | Level
HalfClose: TypeAlias = Literal["auto", "linger", "close"]
ProxyScheme: TypeAlias = Literal["http", "https", "socks5", "socks5h"]
Source: TypeAlias = Literal["service_account_file", "systemd_credential", "env", "command", "login"]

Locate: TypeAlias = Callable[[str], tuple[Path | None, int]]
"""Returns the file and line of a dotted key."""


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host (name or address, IPv6 without brackets) and a port. ``str()`` is the form that CONNECT takes."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket to listen on, and its permissions."""

    path: Path
    mode: int = 0o660
    user: str = ""
    group: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}"


ListenAddress: TypeAlias = HostPort | UnixAddress
ListenKey: TypeAlias = tuple[str, str]
"""Identifies a listening socket, see ``listen_key``."""


@dataclass(frozen=True, slots=True)
class Trust:
    """The parameters of a TLS context. Gateways with equal ones share a context."""

    verify: bool = True
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    ca_pem: str = field(default="", repr=False)
    """CA certificates given inline by a flag, instead of ``ca_file``."""
    digest: str = ""
    """Hash over the contents of the files, so that a replaced certificate counts as a change."""
    with_http2: bool = False
    """Offer HTTP/2 beside HTTP/1.1, for tunnels only, as the agent's other requests use HTTP/1.1."""
    with_system: bool = False
    """Trust the system's CAs beside ``ca_file``, because a forward proxy may have a certificate of either."""


@dataclass(frozen=True, slots=True)
class ForwardProxy:
    """A proxy between this host and a gateway."""

    scheme: ProxyScheme
    address: HostPort
    credentials: SecretStr | None = None
    """``user:password``. A change counts as a change of the gateway."""
    trust: Trust = Trust()
    """Trust of an ``https`` proxy, without the client certificate, which is for the gateway only."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}"


@dataclass(frozen=True, slots=True)
class Gateway:
    """A Pomerium edge and how to reach it."""

    name: str
    """The table's name, or ``host:port`` of an edge that a route's ``from`` implies."""
    address: HostPort
    """Host and port of the URL: the host is SNI and the verified name."""
    tls: bool = True
    connect_to: HostPort | None = None
    """Address to dial instead of ``address``."""
    credential_header: Literal["authorization", "x-pomerium-authorization"] = "authorization"
    trust: Trust = Trust()
    forward_proxy: str = ""
    """The operator's setting: a URL or ``env``."""
    forward_proxy_credentials_file: Path | None = None
    proxy: ForwardProxy | None = None
    """The resolved forward proxy, or None if the gateway is dialed directly."""
    transport: Literal["http1", "http2"] = "http1"
    connect_timeout_s: float = 5.0
    tls_timeout_s: float = 5.0
    response_timeout_s: float = 35.0
    max_dials: int = 8
    problem: str = ""
    """Why it must not be dialed: a certificate, key or password cannot be used yet. Empty if nothing is missing."""

    @property
    def tunnel_trust(self) -> Trust:
        """Trust for connections that carry tunnels. ``trust`` is for all other requests to the gateway."""
        return replace(self.trust, with_http2=True) if self.transport == "http2" else self.trust

    @property
    def dial_address(self) -> HostPort:
        return self.connect_to or self.address


@dataclass(frozen=True, slots=True)
class Credential:
    """The source of a token, and the token read with the settings."""

    name: str
    source: Source
    path: Path | None = None
    """File of ``service_account_file`` and ``systemd_credential``."""
    variable: str = ""
    """Environment variable of ``env``."""
    command: tuple[str, ...] = ()
    command_timeout_s: float = 30.0
    recheck_s: float = 0.0
    scheme: Literal["pomerium", "bearer"] = "pomerium"
    token: SecretStr | None = None
    """None for the sources that are used later (``command``, ``login``)."""
    anonymous_first: bool = False
    """Obtain a token only after a refusal, because a person would have to log in and the route may be public."""


@dataclass(frozen=True, slots=True)
class Route:
    """One ``[[routes]]`` entry, resolved: a local address that leads to a destination behind a gateway."""

    name: str
    listen: ListenAddress
    destination: HostPort
    gateway: Gateway
    credential: Credential | None = None
    protocol: str = "generic"
    """``auto``: by the destination's port, else by the server's first bytes."""
    warm: Warm = "tunnel"
    """``auto``: by protocol."""
    pool_min: int = 1
    pool_max: int = 4
    pool_max_age_s: float = 0.0
    """0: the default of the protocol."""
    pool_decay_s: float = 1800.0
    wait_timeout_s: float = 20.0
    hold_s: float = 8.0
    """0: no client is held."""
    max_sessions: int = 256
    half_close: HalfClose = "auto"
    half_close_timeout_s: float = 60.0
    idle_timeout_s: float = 0.0
    max_lifetime_s: float = 0.0
    allow_users: tuple[str, ...] = ()
    enabled: bool = True
    tags: tuple[str, ...] = ()
    description: str = ""


def listen_key(route: Route) -> ListenKey:
    """Return the identity of a listener: its address, for a Unix socket the path, with port 0 also the route's name."""
    if isinstance(route.listen, UnixAddress):
        return str(route.listen), ""
    return str(route.listen), "" if route.listen.port else route.name


@dataclass(frozen=True, slots=True)
class AgentSettings:
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    log_sessions: str = "all"
    """``all``, ``errors``, ``none``, or a share of the sessions that end cleanly, such as ``1/100``."""
    max_sessions: int = 2000
    workers: int = 1
    boot_from_last_good: bool = False
    allow_empty: bool = False


@dataclass(frozen=True, slots=True)
class StatusSettings:
    listen: HostPort | None = HostPort("127.0.0.1", 9765)
    allow_users: tuple[str, ...] = ()
    control_socket: Path | None = None


@dataclass(frozen=True, slots=True)
class DrainSettings:
    accept_for_s: float = 0.0
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """One accepted ``agent.toml`` with all its includes."""

    path: Path
    agent: AgentSettings = AgentSettings()
    status: StatusSettings = StatusSettings()
    drain: DrainSettings = DrainSettings()
    routes: tuple[Route, ...] = ()
    """Enabled and disabled routes, in the order of the files."""
    watched: frozenset[Path] = frozenset()
    """Files, and directories of ``include`` patterns, that trigger a reload when they change."""
    sha: str = ""
    """Short hash over all files that were read. Equal hashes need no reload."""
    warnings: tuple[str, ...] = ()
    """Sentences about accepted settings that are unsafe or without effect, each with file and line."""
    waits_for: tuple[Problem, ...] = ()
    """Credentials and certificates that cannot be used yet. Their routes cannot be dialed."""
    patterns: tuple[str, ...] = ()
    """Names that ``include`` matches. Other entries of a watched directory are ignored."""
    gateways: tuple[tuple[Gateway, Credential | None], ...] = field(default=(), compare=False, repr=False)
    """All ``[gateways.*]`` tables, used by a route or not, each with its credential."""
    files: tuple[tuple[Path, bytes], ...] = field(default=(), compare=False, repr=False)
    """The TOML files and their contents, the main file first."""
    locate: Locate | None = field(default=None, compare=False, repr=False)

    @property
    def enabled_routes(self) -> tuple[Route, ...]:
        return tuple(route for route in self.routes if route.enabled)

    def problem(self, key: str, message: str) -> Problem:
        """Return a problem of one key with its file and line."""
        path, line = self.locate(key) if self.locate else (self.path, 0)
        return Problem(path, line, key, message)
