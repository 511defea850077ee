"""Lists the keys that differ between two settings, and how each change is applied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from pydantic import BaseModel

from pomagent.config.model import (
    AgentTable,
    CredentialTable,
    DrainTable,
    GatewayTable,
    RouteTable,
    StatusTable,
)
from pomagent.settings import Credential, ForwardProxy, Gateway, Route, Settings, Trust, UnixAddress

CONTENTS = "(contents)"
"""Shown in place of the contents of a file."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key that has another value than before. The values are shown as in the file and are never secret."""

    key: str
    apply: str
    """``live``, ``new-sessions``, ``rebind`` or ``restart`` (see ``config/keys.py``)."""
    before: str
    after: str


def changes(old: Settings, new: Settings) -> tuple[Change, ...]:
    """Return every changed key of what is in both settings. The plan lists the routes that are in one of them only."""
    found = [
        *_table("agent", AgentTable, _plain(old.agent), _plain(new.agent)),
        *_table("status", StatusTable, _plain(old.status), _plain(new.status)),
        *_table("drain", DrainTable, _plain(old.drain), _plain(new.drain)),
    ]
    before, after = ({route.name: route for route in settings.routes} for settings in (old, new))
    for name in before.keys() & after.keys():
        if before[name] != after[name]:
            found += _route(before[name], after[name])
    return tuple(sorted(dict.fromkeys(found), key=lambda change: change.key))


def _route(old: Route, new: Route) -> Iterator[Change]:
    yield from _table(f"routes.{new.name}", RouteTable, _route_keys(old), _route_keys(new))
    if old.gateway.name == new.gateway.name:
        yield from _table(
            f"gateways.{new.gateway.name}", GatewayTable, _gateway_keys(old.gateway), _gateway_keys(new.gateway)
        )
    if old.credential and new.credential and old.credential.name == new.credential.name:
        yield from _table(
            f"credentials.{new.credential.name}", CredentialTable,
            _credential_keys(old.credential), _credential_keys(new.credential),
        )  # fmt: skip


def _table(prefix: str, model: type[BaseModel], old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if before != after:
            shown = (_shown(before), _shown(after))
            same = shown[0] == shown[1]  # the same file or variable with other contents
            yield Change(f"{prefix}.{key}", _apply_class(model, key), *((CONTENTS, CONTENTS) if same else shown))


def _apply_class(model: type[BaseModel], key: str) -> str:
    extra = model.model_fields["from_" if key == "from" else key].json_schema_extra
    assert isinstance(extra, dict), "every key declares how it is applied"
    return str(extra["x-apply"])


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class _Source:
    """A file or variable that is shown by its name and compared by its contents, too."""

    name: str
    contents: object

    def __str__(self) -> str:
        return self.name


def _plain(facts: Any) -> dict[str, Any]:
    return {field.name: getattr(facts, field.name) for field in fields(facts) if field.compare}


def _route_keys(route: Route) -> dict[str, Any]:
    keys = _plain(route)
    listen = keys.pop("listen")
    keys.pop("name")
    if isinstance(listen, UnixAddress):
        keys |= {"socket_mode": f"{listen.mode:04o}", "socket_user": listen.user, "socket_group": listen.group}
    return keys | {
        "listen": str(listen),
        "from": str(keys.pop("destination")),
        "gateway": keys.pop("gateway").name,
        "credential": route.credential.name if route.credential else "",
    }


def _gateway_keys(gateway: Gateway) -> dict[str, Any]:
    keys = _plain(gateway)
    keys.pop("name")
    keys.pop("problem")  # not a key: a file that can be used again shows as its contents
    trust: Trust = keys.pop("trust")
    proxy: ForwardProxy | None = keys.pop("proxy")
    if proxy is not None and gateway.forward_proxy_credentials_file:
        file = str(gateway.forward_proxy_credentials_file)
        keys["forward_proxy_credentials_file"] = _Source(file, proxy.credentials)
    url = f"{'https' if keys.pop('tls') else 'http'}://{keys.pop('address')}"
    certificates = ("ca_file", "client_cert_file", "client_key_file")
    files: dict[str, Any] = {name: getattr(trust, name) for name in certificates}
    if trust.digest:  # the digest covers all three files, so the change is shown for the first one
        named = next((name for name in certificates if files[name]), "ca_file")
        files[named] = _Source(str(files[named]), trust.digest)
    return keys | files | {"url": url, "verify_tls": trust.verify}


def _credential_keys(credential: Credential) -> dict[str, Any]:
    named: Any = credential.path or credential.variable or credential.command
    return {
        credential.source: _Source(str(named), credential.token),
        "scheme": credential.scheme,
        "recheck_s": credential.recheck_s,
        "command_timeout_s": credential.command_timeout_s,
    }
