"""Resolves validated tables to ``settings``: decides each ``auto`` and checks keys against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from pomagent.config.default_paths import default_control_socket
from pomagent.config.listen import Listeners, is_loopback, parse_listen
from pomagent.config.mistakes import Mistakes
from pomagent.config.model import AgentTable, DrainTable, RouteDefaults, RouteTable, StatusTable
from pomagent.config.references import References
from pomagent.config.tables import Entry, RouteEntry
from pomagent.protocol.route_url import AddressError, RouteUrl
from pomagent.settings import (
    AgentSettings,
    DrainSettings,
    HostPort,
    ListenAddress,
    Route,
    StatusSettings,
    UnixAddress,
)


class RouteResolver:
    """Resolves routes one by one. Names and addresses must be unique among them."""

    def __init__(self, references: References, listeners: Listeners, mistakes: Mistakes) -> None:
        self._references = references
        self._listeners = listeners
        self._mistakes = mistakes
        self._names: set[str] = set()

    def resolve(self, entry: RouteEntry) -> Route | None:
        """Return a route, or None, with its problems reported, if it is unusable."""
        self._claim_name(entry)
        url = self._url(entry)
        listen = self._listen(entry)
        gateway = self._references.gateway(entry, url)
        credential = self._references.credential(entry)
        if "pool_min" in entry.given or "pool_max" in entry.given:
            check_pool(entry, self._mistakes)
        if not url or not listen or not gateway:
            return None
        table = entry.table
        return Route(
            name=entry.name,
            listen=listen,
            destination=url.destination,
            gateway=gateway,
            credential=credential,
            protocol=table.protocol,
            warm=table.warm,
            pool_min=table.pool_min,
            pool_max=table.pool_max,
            pool_max_age_s=table.pool_max_age_s,
            pool_decay_s=table.pool_decay_s,
            wait_timeout_s=table.wait_timeout_s,
            hold_s=table.hold_s,
            max_sessions=table.max_sessions,
            half_close=table.half_close,
            half_close_timeout_s=table.half_close_timeout_s,
            idle_timeout_s=table.idle_timeout_s,
            max_lifetime_s=table.max_lifetime_s,
            allow_users=tuple(map(str, table.allow_users)),
            enabled=table.enabled,
            tags=tuple(table.tags),
            description=table.description,
        )

    def _claim_name(self, entry: RouteEntry) -> None:
        if entry.name in self._names and entry.has("name"):
            missing = "" if "name" in entry.given else "is missing, and the default "
            self._mistakes.problem(entry.place, "name", f'{missing}"{entry.name}" is already the name of another route')
        self._names.add(entry.name)

    def _url(self, entry: RouteEntry) -> RouteUrl | None:
        if isinstance(entry.url, RouteUrl):
            return entry.url
        if entry.has("from"):
            self._mistakes.problem(entry.place, "from", str(entry.url))
        return None

    def _listen(self, entry: RouteEntry) -> ListenAddress | None:
        owner = f'route "{entry.name}"'
        listeners = self._listeners if entry.table.enabled else Listeners()
        address = claimed_address(entry, listeners, owner, self._mistakes)
        if isinstance(address, Path):
            table = entry.table
            return UnixAddress(address, int(table.socket_mode, 8), table.socket_user, table.socket_group)
        return address


def claimed_address(
    entry: Entry[RouteTable] | Entry[StatusTable], listeners: Listeners, owner: str, mistakes: Mistakes
) -> HostPort | Path | None:
    """Return the listen address of an entry, and report one in use or exposed without consent."""
    if not entry.has("listen"):
        return None
    try:
        address = parse_listen(entry.table.listen, entry.place.document.directory)
    except AddressError as error:
        mistakes.problem(entry.place, "listen", str(error))
        return None
    shown = f"unix:{address}" if isinstance(address, Path) else str(address)
    if present := listeners.claim(address, owner):
        mistakes.problem(entry.place, "listen", f"{shown} is already used by {present}")
    if not is_loopback(address):
        _check_exposed(entry, shown, mistakes)
    return address


def _check_exposed(entry: Entry[RouteTable] | Entry[StatusTable], shown: str, mistakes: Mistakes) -> None:
    if entry.table.unsafe_listen:
        mistakes.warning(entry.place, "listen", f"{shown} is not loopback: other hosts can connect")
    elif entry.has("unsafe_listen"):
        message = f"{shown} is not loopback; expected a loopback address, or unsafe_listen = true beside it"
        mistakes.problem(entry.place, "listen", message)


def check_pool(entry: Entry[RouteDefaults] | RouteEntry, mistakes: Mistakes) -> None:
    """Report a pool with a minimum above its maximum."""
    table = entry.table
    if table.pool_min > table.pool_max and entry.has("pool_min") and entry.has("pool_max"):
        key = "pool_min" if "pool_min" in entry.given else "pool_max"
        mistakes.problem(entry.place, key, f"pool_min = {table.pool_min} is more than pool_max = {table.pool_max}")


def agent_settings(entry: Entry[AgentTable], mistakes: Mistakes) -> AgentSettings:
    """Return ``[agent]`` without the includes, which have been read."""
    if entry.table.workers != 1:
        mistakes.problem(
            entry.place, "workers", f"is {entry.table.workers}; expected 1, as more are not supported so far"
        )
    return AgentSettings(**{field.name: getattr(entry.table, field.name) for field in fields(AgentSettings)})


def drain_settings(entry: Entry[DrainTable]) -> DrainSettings:
    return DrainSettings(entry.table.accept_for_s, entry.table.timeout_s)


def status_settings(
    entry: Entry[StatusTable], listeners: Listeners, environ: Mapping[str, str], mistakes: Mistakes
) -> StatusSettings:
    """Return ``[status]`` with the default path of the control socket."""
    address = claimed_address(entry, listeners, "status.listen", mistakes) if entry.table.listen else None
    if isinstance(address, Path):
        mistakes.problem(entry.place, "listen", "is a Unix socket; expected IP:PORT")
    socket = entry.table.control_socket
    return StatusSettings(
        listen=address if isinstance(address, HostPort) else None,
        allow_users=tuple(map(str, entry.table.allow_users)),
        control_socket=entry.place.file(socket) if socket else default_control_socket(environ),
    )
