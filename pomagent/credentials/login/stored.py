"""Finds stored tokens of logins: the user's own, and those stored for the agent's credentials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from pomagent.config.default_paths import personal_state_directory, state_directory
from pomagent.credentials.login.cache import TokenCache
from pomagent.errors import CredentialError
from pomagent.settings import Credential, Gateway, HostPort


def user_cache(environ: Mapping[str, str]) -> TokenCache:
    """Return the cache of the user of a command: ``pomagent login``, ``tcp``, ``routes``, ``whoami``."""
    return TokenCache(personal_state_directory(environ) / "tokens")


def stored_token(credential: Credential, gateway: Gateway | None, environ: Mapping[str, str]) -> SecretStr | None:
    """Return the token that ``pomagent login`` stored for an agent's credential, or None. Blocks.

    A token from ``gateway`` comes first. One from another gateway serves as well, because gateways that share a
    credential are one cluster by the operator's settings.
    """
    cache = _cache_of(credential.name, environ)
    found = (cache.find(gateway.address) if gateway else []) or cache.all()
    return found[0].token if found else None


def presentable_token(credential: Credential, gateway: Gateway, environ: Mapping[str, str]) -> SecretStr:
    """Return the agent's token if this user may read it, else the user's own. Blocks. Raises CredentialError."""
    token = stored_token(credential, gateway, environ)
    if token is None:
        found = user_cache(environ).find(gateway.address)
        token = found[0].token if found else None
    if token is None:
        raise CredentialError(f"run: pomagent login {gateway.name} (no login is stored)")
    return token


def store_token(credential: str, gateway: HostPort, token: SecretStr, environ: Mapping[str, str]) -> None:
    """Store a token for the next start of the agent. Blocks. Raises OSError."""
    _cache_of(credential, environ).store(gateway, token)


def forget_tokens(credential: str, environ: Mapping[str, str]) -> int:
    """Remove the tokens stored for a credential and return their count. Blocks."""
    return _cache_of(credential, environ).forget_gateway(None)


def _cache_of(credential: str, environ: Mapping[str, str]) -> TokenCache:
    return TokenCache(Path(state_directory(environ)) / "logins" / f"credential-{credential}")
