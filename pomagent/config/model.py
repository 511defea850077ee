"""Every key of ``agent.toml``: its type, bounds, default, meaning, and how a changed value is applied.

Shapes only. What a value means (is this a route's URL, does that gateway exist, do two keys contradict each other) is
checked by ``resolve``, because each of those answers needs a line number and none may hide another. The descriptions
feed the JSON Schema, and with it the editor and the tables of the README.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

from pomagent.config.keys import DAY_S, HOUR_S, LIVE, NEW_SESSIONS, REBIND, RESTART, key, off, on, seconds, timeout
from pomagent.settings import HalfClose

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]*$"
ENV_PREFIX = "POMAGENT_"
ENV_DELIMITER = "__"

MAX_WARM = 1000  # tunnels of one route: each is a descriptor here and a connection to somebody's server there
MAX_SESSIONS = 1_000_000  # more than a host has local ports, descriptors or memory for

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Text = Annotated[str, StringConstraints(min_length=1)]
LogSessions = Annotated[str, StringConstraints(pattern=r"^(all|errors|none|1/[1-9][0-9]{0,5})$")]
Protocol = Literal["auto", "generic", "http", "redis", "postgres", "mysql", "ssh", "rdp", "mssql"]


class Table(BaseModel):
    """A table of the file."""

    # strict: "5" is not a number and 1 is not a boolean, so that a slip is an error instead of a surprise
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class AgentTable(Table):
    """The whole agent."""

    include: list[Text] = key(
        [],
        LIVE,
        "More files with [[routes]], [gateways.*] and [credentials.*]; patterns, relative to this file; watched.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = key("info", LIVE, "The least level that is logged.")
    log_format: Literal["auto", "json", "console"] = key(
        "auto", LIVE, "auto: console on a terminal, JSON otherwise; or one of the two."
    )
    log_sessions: LogSessions = key(
        "all",
        LIVE,
        'Which sessions get a line when they end. errors: those that did not end well; "1/100": these, and one in 100 '
        "of the others. The next line of a route says how many got none.",
    )
    max_sessions: int = key(2000, LIVE, "Sessions of all routes together.", ge=1, le=MAX_SESSIONS)
    workers: int = key(1, RESTART, "Processes that share the listeners; only 1 for now.", ge=1, le=1024)
    boot_from_last_good: bool = off(
        LIVE, "Start from the last accepted file if the present one is invalid, instead of exiting with 78."
    )
    allow_empty: bool = off(
        LIVE, "A file without routes is meant. Otherwise it is taken for one that is half written, and refused."
    )


class StatusTable(Table):
    """Health, metrics and the status page; the control socket."""

    listen: str = key("127.0.0.1:9765", REBIND, 'Address of health, metrics and status page; "": off. Read-only.')
    unsafe_listen: bool = off(REBIND, "Required true for an address that is not loopback.")
    allow_users: list[Text | int] = key(
        [],
        LIVE,
        "Local users or uids that may see the page, status.json and metrics; []: all. Health answers everyone.",
    )
    control_socket: str = key(
        "", RESTART, "Path of the control socket. Default: /run/pomagent/control.sock for root and the service, "
        "$XDG_RUNTIME_DIR/pomagent/control.sock for others."
    )  # fmt: skip


class DrainTable(Table):
    """What happens after SIGTERM."""

    accept_for_s: float = seconds(0, LIVE, "First, listeners still accept and still dial for so long.", most=HOUR_S)
    timeout_s: float = seconds(30, LIVE, "Then sessions may finish for so long.", most=7 * DAY_S)


class GatewayTable(Table):
    """A Pomerium edge."""

    url: Text = key(..., NEW_SESSIONS, "Scheme, host and port of the edge: https://pomerium.example.com.")
    connect_to: str = key(
        "", NEW_SESSIONS, "host:port to dial instead of the URL's; the URL's host stays SNI and the verified name."
    )
    credential: str | None = key(
        None, NEW_SESSIONS, 'Name of a [credentials.*] table. Default: "default" if there is one; "": none.'
    )
    credential_header: Literal["authorization", "x-pomerium-authorization"] = key(
        "authorization", NEW_SESSIONS, "The request header that carries the token."
    )
    ca_file: str = key("", NEW_SESSIONS, "PEM file of the CAs to trust; default: the system's trust store.")
    client_cert_file: str = key("", NEW_SESSIONS, "PEM client certificate, with its chain.")
    client_key_file: str = key(
        "", NEW_SESSIONS, "Its private key, not encrypted, unless the certificate's file has it."
    )
    verify_tls: bool = on(NEW_SESSIONS, "false accepts any certificate: whoever is in between gets the token.")
    forward_proxy: str = key(
        "",
        NEW_SESSIONS,
        "http://, https://, socks5:// (names are looked up here) or socks5h:// (there) proxy on the way; "
        '"env": as HTTPS_PROXY, ALL_PROXY and NO_PROXY say.',
    )
    forward_proxy_credentials_file: str = key(
        "", NEW_SESSIONS, 'File with "user:password" for the forward proxy, not readable by others; watched.'
    )
    transport: Literal["http1", "http2"] = key(
        "http1",
        NEW_SESSIONS,
        "http2: one tunnel per HTTP/2 connection, which carries half-close and tells why it ends; "
        "where the edge does not offer it, http1 is used.",
    )
    connect_timeout_s: float = timeout(
        5, "For the TCP connection; through a forward proxy for the one to it, and again for its own to the edge."
    )
    tls_timeout_s: float = timeout(5, "For the TLS handshake.")
    response_timeout_s: float = timeout(
        35, "For the answer to CONNECT: the edge itself may take 10 s to authorize and 10 s to connect."
    )
    max_dials: int = key(
        8, NEW_SESSIONS, "TCP and TLS handshakes at a time; applications' go before refills.", ge=1, le=1024
    )
    insecure_http: bool = off(NEW_SESSIONS, "true allows an http:// url: the token travels in clear text.")


class CredentialTable(Table):
    """Where a token comes from: exactly one source."""

    service_account_file: Text | None = key(
        None, NEW_SESSIONS, "File with the token and nothing else, not readable by others; read again when it changes."
    )
    systemd_credential: Text | None = key(
        None, NEW_SESSIONS, "Name of a file in $CREDENTIALS_DIRECTORY (LoadCredential=)."
    )
    env: Text | None = key(None, NEW_SESSIONS, "Name of the environment variable that holds the token.")
    command: Annotated[list[str], Field(min_length=1)] | None = key(
        None, NEW_SESSIONS, "Prints the token; run again before it expires and after a refusal. No shell."
    )
    command_timeout_s: float = timeout(30, "For one run of the command.")
    login: Literal["browser"] | None = key(
        None, NEW_SESSIONS, '"browser": `pomagent login` obtains and stores the token.'
    )
    recheck_s: float = seconds(
        0,
        LIVE,
        "Ask the edge so often whether the credential is still good, and end its sessions when it is not; 0: off.",
    )
    scheme: Literal["pomerium", "bearer"] = key(
        "pomerium",
        NEW_SESSIONS,
        "pomerium: Authorization: Pomerium JWT; bearer: Authorization: Bearer TOKEN, of the IdP.",
    )


class RouteDefaults(Table):
    """Defaults for all routes."""

    unsafe_listen: bool = off(LIVE, "Required true for a listen address that is not loopback.")
    gateway: str = key(
        "", NEW_SESSIONS, "Name of a [gateways.*] table; only the destination is taken from `from` then. Default: the "
        "edge that `from` names, by HTTPS, port 443 unless it has one."
    )  # fmt: skip
    credential: str | None = key(
        None, NEW_SESSIONS, 'Name of a [credentials.*] table; overrides the gateway\'s; "": none.'
    )
    protocol: Protocol = key(
        "auto", NEW_SESSIONS, "What the server speaks. auto: by the destination's port, else by what it says first."
    )
    warm: Literal["auto", "tunnel", "tls", "off"] = key(
        "auto", NEW_SESSIONS, "What is kept ready: whole tunnels (each holds a connection to the server open), TLS "
        "connections to the edge, or nothing. auto: by protocol."
    )  # fmt: skip
    pool_min: int = key(1, NEW_SESSIONS, "Tunnels that are kept ready at least.", ge=0, le=MAX_WARM)
    pool_max: int = key(4, NEW_SESSIONS, "Tunnels that are kept ready at most; demand decides.", ge=1, le=MAX_WARM)
    pool_max_age_s: float = seconds(0, NEW_SESSIONS, "Replace a warm tunnel of this age; 0: by protocol.", most=DAY_S)
    pool_decay_s: float = seconds(
        1800,
        NEW_SESSIONS,
        "Unused for so long, keep only TLS connections in common with others, until the next use; 0: never.",
    )
    wait_timeout_s: float = timeout(20, "How long an application may wait for a tunnel.")
    max_sessions: int = key(
        256,
        NEW_SESSIONS,
        'Sessions at a time; above, wait 1 s, then a reset with reason "limit".',
        ge=1,
        le=MAX_SESSIONS,
    )
    half_close: HalfClose = key(
        "auto",
        NEW_SESSIONS,
        "After the application's end of data: auto carries it where the transport can, else lingers.",
    )
    half_close_timeout_s: float = seconds(60, NEW_SESSIONS, "Without a byte, after a true half-close.", most=DAY_S)
    idle_timeout_s: float = seconds(0, NEW_SESSIONS, "End a session without a byte for so long; 0: off.")
    max_lifetime_s: float = seconds(0, NEW_SESSIONS, "End a session of this age, ±10 %; 0: off.")
    allow_users: list[Text | int] = key([], NEW_SESSIONS, "Local users or uids that may connect; []: all.")
    socket_mode: str = key("0660", REBIND, "Permissions of a unix listener.", pattern=r"^0?[0-7]{3}$")
    socket_user: str = key("", REBIND, "Owner of a unix listener.")
    socket_group: str = key("", REBIND, "Group of a unix listener.")
    enabled: bool = on(REBIND, "false: checked, but not listening.")
    tags: list[Text] = key([], LIVE, "For the status page.")
    description: str = key("", LIVE, "For people.")


class RouteTable(RouteDefaults):
    """A local address that leads to a destination behind a gateway."""

    name: Annotated[Name, StringConstraints(max_length=260)] | None = key(
        None, NEW_SESSIONS, "Unique; a-z 0-9 - _ . Default: the destination, such as redis.example.com-6379."
    )
    from_: Text = key(
        ..., NEW_SESSIONS, "tcp+https://HOST:PORT, tcp+https://EDGE[:PORT]/HOST:PORT, or HOST:PORT.", alias="from"
    )
    listen: Text = key(
        ..., REBIND, "127.0.0.1:5432, [::1]:5432, unix:/run/x.sock; port 0 is chosen at start and shown by status."
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

    agent: AgentTable = Field(AgentTable(), description="The whole agent.")
    status: StatusTable = Field(StatusTable(), description="Health, metrics, status page, control socket.")
    drain: DrainTable = Field(DrainTable(), description="What happens after SIGTERM.")
    gateways: dict[Name, GatewayTable] = Field({}, description="Pomerium edges by name.")
    credentials: dict[Name, CredentialTable] = Field({}, description="Where tokens come from, by name.")
    defaults: RouteDefaults = Field(RouteDefaults(), description="Defaults for the keys of all routes.")
    routes: list[RouteTable] = Field([], description="Local addresses that lead to destinations behind a gateway.")
