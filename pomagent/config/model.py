"""Every key of ``agent.toml``: its type, bounds, default, meaning, and how a changed value is applied.

Only shapes are checked here. ``resolve`` checks meanings (the URL of a route, the existence of a gateway, keys that
contradict each other), because each problem needs a line number and none may hide another. The descriptions feed the
JSON Schema for editors and the tables of the README.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

from pomagent.config.keys import DAY_S, HOUR_S, LIVE, NEW_SESSIONS, REBIND, RESTART, key, off, on, seconds, timeout
from pomagent.config.value_types import MAX_SESSIONS, MAX_WARM, LogSessions, Name, Protocol, Text
from pomagent.settings import HalfClose

ENV_PREFIX = "POMAGENT_"
ENV_DELIMITER = "__"


class Table(BaseModel):
    """A table of the file. It is strict, so that slips are errors: "5" is not a number and 1 is not a boolean."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class AgentTable(Table):
    """Settings of the whole agent."""

    include: list[Text] = key(
        [],
        LIVE,
        "More files with [[routes]], [gateways.*] and [credentials.*]: paths or patterns, relative to this file.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = key("info", LIVE, "Minimum level that is logged.")
    log_format: Literal["auto", "json", "console"] = key(
        "auto", LIVE, "Format of log lines; auto: console on a terminal, JSON otherwise."
    )
    log_sessions: LogSessions = key(
        "all",
        LIVE,
        'Sessions that are logged when they end; errors: those that ended with an error; "1/100": these and one in 100 '
        "of the others. The next line of the route counts the sessions left out.",
    )
    max_sessions: int = key(2000, LIVE, "Maximum open sessions of all routes together.", ge=1, le=MAX_SESSIONS)
    workers: int = key(1, RESTART, "Processes that share the listeners; only 1 is supported so far.", ge=1, le=1024)
    boot_from_last_good: bool = off(
        LIVE, "Start from the last accepted file if the current one is invalid, instead of exiting with 78."
    )
    allow_empty: bool = off(LIVE, "Accept a file without routes, which is otherwise rejected as half written.")


class StatusTable(Table):
    """Settings of health, metrics, the status page and the control socket."""

    listen: str = key("127.0.0.1:9765", REBIND, 'Read-only address of health, metrics and status page; "": off.')
    unsafe_listen: bool = off(REBIND, "Must be true for an address that is not loopback.")
    allow_users: list[Text | int] = key(
        [], LIVE, "Local users or uids that may read page, status.json and metrics; []: all. Health is open to all."
    )
    control_socket: str = key(
        "", RESTART, "Path of the control socket. Default: /run/pomagent/control.sock for root and the service, "
        "$XDG_RUNTIME_DIR/pomagent/control.sock for other users."
    )  # fmt: skip


class DrainTable(Table):
    """Settings of the drain that SIGTERM starts."""

    accept_for_s: float = seconds(0, LIVE, "First phase: listeners accept and routes dial for this long.", most=HOUR_S)
    timeout_s: float = seconds(30, LIVE, "Second phase: open sessions may finish for this long.", most=7 * DAY_S)


class GatewayTable(Table):
    """Settings of a Pomerium edge."""

    url: Text = key(..., NEW_SESSIONS, "Scheme, host and port of the edge: https://pomerium.example.com.")
    connect_to: str = key(
        "", NEW_SESSIONS, "host:port to dial instead of the URL's. SNI and the verified name stay the URL's host."
    )
    credential: str | None = key(
        None, NEW_SESSIONS, 'Name of a [credentials.*] table; "": none. Default: the one named "default", if declared.'
    )
    credential_header: Literal["authorization", "x-pomerium-authorization"] = key(
        "authorization", NEW_SESSIONS, "Request header that carries the token."
    )
    ca_file: str = key("", NEW_SESSIONS, "PEM file of the trusted CAs. Default: the system's trust store.")
    client_cert_file: str = key("", NEW_SESSIONS, "PEM file of the client certificate with its chain.")
    client_key_file: str = key(
        "", NEW_SESSIONS, "PEM file of its private key, not encrypted. Default: the certificate's file."
    )
    verify_tls: bool = on(
        NEW_SESSIONS, "Verify the edge's certificate. false exposes the token to any host on the path."
    )
    forward_proxy: str = key(
        "",
        NEW_SESSIONS,
        "URL of the forward proxy: http://, https://, socks5:// (names resolved by this host) or socks5h:// (by the "
        'proxy); "env": taken from HTTPS_PROXY, ALL_PROXY and NO_PROXY.',
    )
    forward_proxy_credentials_file: str = key(
        "", NEW_SESSIONS, 'File with "user:password" for the forward proxy, not readable by other users; watched.'
    )
    transport: Literal["http1", "http2"] = key(
        "http1",
        NEW_SESSIONS,
        "Protocol that carries tunnels. http2: one tunnel per HTTP/2 connection, with half-close and a reason when it "
        "ends; http1 is used if the edge does not offer it.",
    )
    connect_timeout_s: float = timeout(
        5, "Timeout of the TCP connection; applied to the forward proxy and again to its connection to the edge."
    )
    tls_timeout_s: float = timeout(5, "Timeout of the TLS handshake.")
    response_timeout_s: float = timeout(
        35, "Timeout of the answer to CONNECT. The edge may take 10 s to authorize and 10 s to connect."
    )
    max_dials: int = key(
        8, NEW_SESSIONS, "Maximum concurrent TCP and TLS handshakes; clients go before refills.", ge=1, le=1024
    )
    insecure_http: bool = off(NEW_SESSIONS, "Allow an http:// url, which sends the token in clear text.")


class CredentialTable(Table):
    """The source of a token: exactly one."""

    service_account_file: Text | None = key(
        None, NEW_SESSIONS, "File that holds only the token, not readable by other users; read again when it changes."
    )
    systemd_credential: Text | None = key(
        None, NEW_SESSIONS, "Name of a credential that systemd loads (LoadCredential=)."
    )
    env: Text | None = key(None, NEW_SESSIONS, "Name of the environment variable that holds the token.")
    command: Annotated[list[str], Field(min_length=1)] | None = key(
        None, NEW_SESSIONS, "Command that prints the token, run without a shell, before expiry and after a refusal."
    )
    command_timeout_s: float = timeout(30, "Timeout of one run of the command.")
    login: Literal["browser"] | None = key(
        None, NEW_SESSIONS, '"browser": `pomagent login` obtains and stores the token of a person.'
    )
    recheck_s: float = seconds(
        0,
        LIVE,
        "Interval at which the edge is asked if the credential is still valid; its sessions end if not. 0: off.",
    )
    scheme: Literal["pomerium", "bearer"] = key(
        "pomerium",
        NEW_SESSIONS,
        'Kind of token. pomerium: sent as "Authorization: Pomerium JWT"; bearer: a token of the identity provider, '
        'sent as "Authorization: Bearer TOKEN".',
    )


class RouteDefaults(Table):
    """Defaults of the keys of all routes."""

    unsafe_listen: bool = off(LIVE, "Must be true for a listen address that is not loopback.")
    gateway: str = key(
        "", NEW_SESSIONS, "Name of a [gateways.*] table; `from` then gives the destination only. Default: the edge "
        "that `from` names, by HTTPS, on port 443 unless it names another."
    )  # fmt: skip
    credential: str | None = key(
        None, NEW_SESSIONS, 'Name of a [credentials.*] table; "": none. Default: the gateway\'s credential.'
    )
    protocol: Protocol = key(
        "auto",
        NEW_SESSIONS,
        "Protocol of the server. auto: by the destination's port, else by the server's first bytes.",
    )
    warm: Literal["auto", "tunnel", "tls", "off"] = key(
        "auto", NEW_SESSIONS, "What is kept ready: whole tunnels (each holds a connection to the server open), TLS "
        "connections to the edge, or nothing. auto: by protocol."
    )  # fmt: skip
    pool_min: int = key(1, NEW_SESSIONS, "Minimum warm tunnels.", ge=0, le=MAX_WARM)
    pool_max: int = key(4, NEW_SESSIONS, "Maximum warm tunnels; demand decides between both.", ge=1, le=MAX_WARM)
    pool_max_age_s: float = seconds(
        0, NEW_SESSIONS, "Age at which a warm tunnel is replaced; 0: by protocol.", most=DAY_S
    )
    pool_decay_s: float = seconds(
        1800,
        NEW_SESSIONS,
        "Time without a client after which only TLS connections shared with other routes are kept ready; 0: never.",
    )
    wait_timeout_s: float = timeout(20, "Time that a client may wait for a tunnel.")
    hold_s: float = seconds(
        8,
        NEW_SESSIONS,
        "Time that new clients of a route that served within the last minute wait, instead of being reset, while its "
        "gateway restarts; 0: off.",
    )
    max_sessions: int = key(
        256,
        NEW_SESSIONS,
        'Maximum open sessions. Further clients wait 1 s and are then reset with reason "limit".',
        ge=1,
        le=MAX_SESSIONS,
    )
    half_close: HalfClose = key(
        "auto",
        NEW_SESSIONS,
        "What follows a client's half-close: auto carries it if the transport can and else lingers.",
    )
    half_close_timeout_s: float = seconds(
        60, NEW_SESSIONS, "Time without data after a half-close that ends the session.", most=DAY_S
    )
    idle_timeout_s: float = seconds(0, NEW_SESSIONS, "Time without data after which a session ends; 0: off.")
    max_lifetime_s: float = seconds(0, NEW_SESSIONS, "Age at which a session ends, ±10 %; 0: off.")
    allow_users: list[Text | int] = key([], NEW_SESSIONS, "Local users or uids that may connect; []: all.")
    socket_mode: str = key("0660", REBIND, "Permissions of a Unix listener.", pattern=r"^0?[0-7]{3}$")
    socket_user: str = key("", REBIND, "Owner of a Unix listener.")
    socket_group: str = key("", REBIND, "Group of a Unix listener.")
    enabled: bool = on(REBIND, "false: the route is validated, but does not listen.")
    tags: list[Text] = key([], LIVE, "Labels shown on the status page.")
    description: str = key("", LIVE, "Free text for operators.")


class RouteTable(RouteDefaults):
    """A local address that leads to a destination behind a gateway."""

    name: Annotated[Name, StringConstraints(max_length=260)] | None = key(
        None,
        NEW_SESSIONS,
        "Unique name of a-z 0-9 - _ . only. Default: the destination, such as redis.example.com-6379.",
    )
    from_: Text = key(
        ...,
        NEW_SESSIONS,
        "A route URL: tcp+https://HOST:PORT, tcp+https://EDGE[:PORT]/HOST:PORT, or HOST:PORT.",
        alias="from",
    )
    listen: Text = key(
        ...,
        REBIND,
        "A local address: 127.0.0.1:5432, [::1]:5432 or unix:/run/x.sock. Port 0: any free one, see status.",
    )


class AgentFile(BaseSettings):
    """agent.toml: the routes that pomagent serves, and how it reaches them."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
    )

    agent: AgentTable = Field(AgentTable(), description="Settings of the whole agent.")
    status: StatusTable = Field(StatusTable(), description="Health, metrics, status page, control socket.")
    drain: DrainTable = Field(DrainTable(), description="Drain after SIGTERM.")
    gateways: dict[Name, GatewayTable] = Field({}, description="Pomerium edges by name.")
    credentials: dict[Name, CredentialTable] = Field({}, description="Sources of tokens by name.")
    defaults: RouteDefaults = Field(RouteDefaults(), description="Defaults of the keys of all routes.")
    routes: list[RouteTable] = Field([], description="Local addresses that lead to destinations behind a gateway.")
