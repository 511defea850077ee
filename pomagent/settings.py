"""What the running agent has been told to do: frozen facts, resolved and validated by ``config``.

Every reference is followed (a route carries its gateway and its credential), every path is absolute, every host is
lower-case and IDNA-encoded. Every ``auto`` is decided but those of ``protocol`` and ``warm``, which depend on what the
server does. Two settings that are equal ask for the same thing: ``plan`` compares nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import SecretStr

from pomagent.errors import Problem

Level: TypeAlias = Literal["tunnel", "tls", "off"]
"""What is kept ready: whole tunnels, TLS connections to the gateway, or nothing."""
Warm: TypeAlias = Literal["auto"] | Level
HalfClose: TypeAlias = Literal["auto", "linger", "close"]
ProxyScheme: TypeAlias = Literal["http", "https", "socks5", "socks5h"]
Source: TypeAlias = Literal["service_account_file", "systemd_credential", "env", "command", "login"]

Locate: TypeAlias = Callable[[str], tuple[Path | None, int]]
"""A dotted key to the file and the line where it stands."""


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host (name or address, IPv6 without brackets) and a port, printed the way a CONNECT names them."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket to listen on, with the permissions it gets."""

    path: Path
    mode: int = 0o660
    user: str = ""
    group: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}"


ListenAddress: TypeAlias = HostPort | UnixAddress
ListenKey: TypeAlias = tuple[str, str]
"""Identifies a listening socket; see ``listen_key``."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Everything a TLS context is made of; gateways with an equal one share a context."""

    verify: bool = True
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    ca_pem: str = field(default="", repr=False)
    """CA certificates given inline (a command's flag), instead of a file."""
    digest: str = ""
    """Of the files' contents when they were read, so that a replaced certificate counts as a change."""
    with_http2: bool = False
    """Offer HTTP/2 beside HTTP/1.1: for tunnels only, nothing else of ours speaks it."""
    with_system: bool = False
    """Trust the system's authorities beside ``ca_file``: a forward proxy need not be of the gateway's."""


@dataclass(frozen=True, slots=True)
class ForwardProxy:
    """A proxy between this host and a gateway."""

    scheme: ProxyScheme
    address: HostPort
    credentials: SecretStr | None = None
    """``user:password``; a change of it counts as a change of the gateway."""
    trust: Trust = Trust()
    """Of an ``https`` proxy; never with a client certificate, which is the gateway's business."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}"


@dataclass(frozen=True, slots=True)
class Gateway:
    """A Pomerium edge and how to reach it."""

    name: str
    """The table's name, or the edge's ``host:port`` where a route's ``from`` implies it."""
    address: HostPort
    """Host and port of the URL: the host is SNI and the verified name."""
    tls: bool = True
    connect_to: HostPort | None = None
    """Dialled instead of ``address`` where given."""
    credential_header: Literal["authorization", "x-pomerium-authorization"] = "authorization"
    trust: Trust = Trust()
    forward_proxy: str = ""
    """As the operator wrote it: a URL or ``env``."""
    forward_proxy_credentials_file: Path | None = None
    proxy: ForwardProxy | None = None
    """What that came to; None: dialled directly."""
    transport: Literal["http1", "http2"] = "http1"
    connect_timeout_s: float = 5.0
    tls_timeout_s: float = 5.0
    response_timeout_s: float = 35.0
    max_dials: int = 8

    @property
    def tunnel_trust(self) -> Trust:
        """Of the connections that carry tunnels; ``trust`` is for everything else that is asked of the gateway."""
        return replace(self.trust, with_http2=True) if self.transport == "http2" else self.trust

    @property
    def dial_address(self) -> HostPort:
        return self.connect_to or self.address


@dataclass(frozen=True, slots=True)
class Credential:
    """Where a token comes from, and the token as it was read with the settings."""

    name: str
    source: Source
    path: Path | None = None
    """Of ``service_account_file`` and ``systemd_credential``."""
    variable: str = ""
    """Of ``env``."""
    command: tuple[str, ...] = ()
    command_timeout_s: float = 30.0
    recheck_s: float = 0.0
    scheme: Literal["pomerium", "bearer"] = "pomerium"
    token: SecretStr | None = None
    """None for the sources that are asked later (``command``, ``login``)."""
    anonymous_first: bool = False
    """Ask for a token only after a refusal: somebody would have to log in for it, and the route may be public."""


@dataclass(frozen=True, slots=True)
class Route:
    """One ``[[routes]]`` entry, resolved: a local address that leads to a destination behind a gateway."""

    name: str
    listen: ListenAddress
    destination: HostPort
    gateway: Gateway
    credential: Credential | None = None
    protocol: str = "generic"
    """``auto``: from the destination's port, else from what the server says first."""
    warm: Warm = "tunnel"
    """``auto``: by protocol."""
    pool_min: int = 1
    pool_max: int = 4
    pool_max_age_s: float = 0.0
    """0: the protocol's own."""
    pool_decay_s: float = 1800.0
    wait_timeout_s: float = 20.0
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
    """What makes two listeners the same: the address, a Unix socket's by its path; with port 0, also whose it is."""
    if isinstance(route.listen, UnixAddress):
        return str(route.listen), ""
    return str(route.listen), "" if route.listen.port else route.name


@dataclass(frozen=True, slots=True)
class AgentSettings:
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    log_sessions: str = "all"
    """``all``, ``errors``, ``none``, or a share of those that end well, such as ``1/100``."""
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
    """One accepted ``agent.toml`` with everything it includes."""

    path: Path
    agent: AgentSettings = AgentSettings()
    status: StatusSettings = StatusSettings()
    drain: DrainSettings = DrainSettings()
    routes: tuple[Route, ...] = ()
    """The enabled and the disabled ones, in the order of the files."""
    watched: frozenset[Path] = frozenset()
    """Every file, and every directory of an ``include`` pattern, whose change calls for a reload."""
    sha: str = ""
    """Short hash over all bytes that were read; equal hashes need no reload."""
    warnings: tuple[str, ...] = ()
    """Sentences about what is accepted but not as safe or as effective as it looks, each with file and line."""
    patterns: tuple[str, ...] = ()
    """The names that ``include`` asks for; others that come or go in a watched directory mean nothing."""
    gateways: tuple[tuple[Gateway, Credential | None], ...] = field(default=(), compare=False, repr=False)
    """The ``[gateways.*]`` tables, each with its credential, whether a route uses them or not."""
    files: tuple[tuple[Path, bytes], ...] = field(default=(), compare=False, repr=False)
    """The TOML files as they were read, the main one first."""
    locate: Locate | None = field(default=None, compare=False, repr=False)

    @property
    def enabled_routes(self) -> tuple[Route, ...]:
        return tuple(route for route in self.routes if route.enabled)

    def problem(self, key: str, message: str) -> Problem:
        """Something to say about one of these keys, with the line where it stands."""
        path, line = self.locate(key) if self.locate else (self.path, 0)
        return Problem(path, line, key, message)
