"""Where tokens of logins are kept: this user's own, and those that the agent was handed for its credentials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from pomagent.config.default_paths import state_directory
from pomagent.credentials.login.cache import TokenCache
from pomagent.errors import CredentialError
from pomagent.settings import Credential, Gateway, HostPort


def user_cache(environ: Mapping[str, str]) -> TokenCache:
    """Of whoever runs a command: ``pomagent login``, ``tcp``, ``routes``, ``whoami``."""
    return TokenCache(state_directory(environ) / "tokens")


def stored_token(credential: Credential, gateway: Gateway | None, environ: Mapping[str, str]) -> SecretStr | None:
    """The token that ``pomagent login`` handed to the agent for a credential, None if it did not. Blocks.

    One from ``gateway`` comes first. One from another gateway serves as well: that both have this credential is the
    operator's word that they are one cluster.
    """
    cache = _cache_of(credential.name, environ)
    kept = (cache.find(gateway.address) if gateway else []) or cache.all()
    return kept[0].token if kept else None


def presentable_token(credential: Credential, gateway: Gateway, environ: Mapping[str, str]) -> SecretStr:
    """What a command presents in the agent's place: its token if this user may read it, else the user's own. Blocks.

    Raises CredentialError.
    """
    token = stored_token(credential, gateway, environ)
    if token is None:
        kept = user_cache(environ).find(gateway.address)
        token = kept[0].token if kept else None
    if token is None:
        raise CredentialError(f"nobody is logged in; run: pomagent login {gateway.name}")
    return token


def store_token(credential: str, gateway: HostPort, token: SecretStr, environ: Mapping[str, str]) -> None:
    """Keep a token for the next start of the agent. Blocks. Raises OSError."""
    _cache_of(credential, environ).keep(gateway, token)


def forget_tokens(credential: str, environ: Mapping[str, str]) -> int:
    """Remove what was stored for a credential; return how many tokens that were. Blocks."""
    return _cache_of(credential, environ).forget_gateway(None)


def _cache_of(credential: str, environ: Mapping[str, str]) -> TokenCache:
    return TokenCache(Path(state_directory(environ)) / "logins" / f"credential-{credential}")
