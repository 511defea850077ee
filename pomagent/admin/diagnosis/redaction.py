"""Removes known and likely secrets from texts and from agent.toml. Pure."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pomagent.config.model import (
    AgentTable,
    CredentialTable,
    DrainTable,
    GatewayTable,
    RouteDefaults,
    RouteTable,
    StatusTable,
)
from pomagent.config.reference import keys_of
from pomagent.config.secrets import looks_like_token

REDACTED: Final = "(redacted)"
UNKNOWN: Final = "(redacted: unknown to pomagent)"
_JWT: Final = re.compile(r"eyJ[\w-]{6,}(?:\.[\w-]*)*")
_USERINFO: Final = re.compile(r"(?<=://)[^/@\s\"']+(?=@)")
_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "agent": keys_of(AgentTable), "status": keys_of(StatusTable), "drain": keys_of(DrainTable),
    "gateways": keys_of(GatewayTable), "credentials": keys_of(CredentialTable), "defaults": keys_of(RouteDefaults),
    "routes": keys_of(RouteTable),
}  # fmt: skip
_NAMES: Final = frozenset({"name", "gateway", "credential"})
"""Keys with values that may be long without being a token. A JWT is redacted even here."""
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def scrubbed(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the text without these secrets, anything that looks like a JWT, and user names and passwords in URLs."""
    forms = {form for secret in secrets if secret for form in (secret, json.dumps(secret)[1:-1])}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, REDACTED)
    return "".join(
        map(_scrubbed_line, text.splitlines(keepends=True))
    )  # a regex over the whole text would block the hub


def _scrubbed_line(line: str) -> str:
    return _USERINFO.sub(REDACTED, _JWT.sub(REDACTED, line))


def redacted_toml(content: bytes) -> str:
    """Return agent.toml, or an included file, reduced to the known keys and their redacted values.

    Comments and unknown keys are left out: they may contain anything.
    """
    try:
        data = tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return "# not valid TOML, so its content is left out\n"
    return "\n".join(_tables(data)) + "\n"


def _tables(data: Mapping[str, Any]) -> Iterator[str]:
    for name, value in data.items():
        if name not in _KEYS:
            yield f"\n[{_name(name)}]\n# {UNKNOWN}"
        elif isinstance(value, list):
            for entry in value:
                yield from _table(f"[[{name}]]", _KEYS[name], entry)
        elif name in ("gateways", "credentials") and isinstance(value, dict):
            for entry_name, entry in value.items():
                yield from _table(f"[{name}.{_name(entry_name)}]", _KEYS[name], entry)
        else:
            yield from _table(f"[{name}]", _KEYS[name], value)


def _table(header: str, keys: frozenset[str], table: Any) -> Iterator[str]:
    yield f"\n{header}"
    if not isinstance(table, dict):
        yield f"# not a table: {REDACTED}"
        return
    for key, value in table.items():
        shown = _shown(key, value) if key in keys else UNKNOWN
        yield f"{_name(key)} = {json.dumps(shown, default=str)}"


def _shown(key: str, value: Any) -> Any:
    if key == "command" and isinstance(value, list):  # the arguments may contain secrets
        return [_shown("", each) for each in value[:1]] + [REDACTED] * len(value[1:])
    if isinstance(value, list):
        return [_shown("", each) for each in value]
    if isinstance(value, dict):
        return REDACTED
    if isinstance(value, str):
        return REDACTED if looks_like_token(value) and key not in _NAMES else scrubbed(value)
    return value


def _name(key: str) -> str:
    """Return the key as TOML writes it. A token in place of a name is redacted."""
    if looks_like_token(key):
        return json.dumps(REDACTED)
    return key if _BARE.fullmatch(key) else json.dumps(key)
