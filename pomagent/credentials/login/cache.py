"""Stores tokens of logins on disk, one file for each cluster, identity provider and gateway.

Files have mode 0600 in a directory with mode 0700.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from pomagent.config.secrets import check_token
from pomagent.credentials.login.claims import Claims, claims_of
from pomagent.errors import CredentialError
from pomagent.runtime.files import read_file
from pomagent.settings import HostPort

DIRECTORY_MODE = 0o700
MAX_FILE_BYTES = 128 * 1024
"""Maximum bytes read from one file: a token of 64 KiB and the names around it."""
SECOND_LEVEL_CHARACTERS = 3
"""Maximum length of a label under which countries register names: co, com, net, org, gov."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class CachedToken:
    """A token, and the gateway of the login that issued it."""

    gateway: str
    """``host:port``."""
    token: SecretStr

    @property
    def claims(self) -> Claims:
        return claims_of(self.token)


class TokenCache:
    """All tokens in one directory. Methods block for milliseconds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def find(self, gateway: HostPort) -> list[CachedToken]:
        """Return the tokens of this gateway, the newest first."""
        return [cached for cached in self.all() if cached.gateway == str(gateway)]

    def siblings(self, gateway: HostPort, issuer: str, idp_id: str) -> list[CachedToken]:
        """Return tokens of the same cluster and identity provider from gateways of the same domain, the newest first.

        A gateway names its cluster itself. The domain keeps it from naming another cluster to get its tokens.
        """
        domain = _domain(gateway.host)
        return [
            cached
            for cached in self.all()
            if domain and issuer and idp_id and _domain(cached.gateway.rpartition(":")[0]) == domain
            and (cached.claims.issuer, cached.claims.idp_id) == (issuer, idp_id) and cached.gateway != str(gateway)
        ]  # fmt: skip

    def all(self) -> list[CachedToken]:
        """Return every token, the newest first."""
        try:
            files = list(self.directory.glob("*.json"))
        except OSError:
            return []
        dated = [found for file in files if (found := _read(file))]
        return [cached for _, cached in sorted(dated, key=lambda item: item[0], reverse=True)]

    def store(self, gateway: HostPort, token: SecretStr) -> None:
        """Store a token. It atomically replaces one of the same gateway, cluster and provider. Raises OSError."""
        document = {"gateway": str(gateway), "token": token.get_secret_value()}
        self._make_directory()
        descriptor, draft = tempfile.mkstemp(dir=self.directory, suffix=".new")  # 0600
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(document, file)
                file.flush()
                os.fsync(file.fileno())
            Path(draft).replace(self._file(gateway, token))
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    def forget(self, token: SecretStr) -> None:
        """Remove every copy of a token that a gateway has rejected."""
        self._remove(lambda cached: cached.token == token)

    def forget_gateway(self, gateway: HostPort | None) -> int:
        """Remove all tokens of a gateway, or of every gateway, and return their count."""
        return self._remove(lambda cached: gateway is None or cached.gateway == str(gateway))

    @contextmanager
    def exclusive(self, gateway: HostPort, pause: Callable[[], None]) -> Iterator[None]:
        """Keep other processes of this user from logging in at the same gateway. Blocks.

        Calls ``pause`` repeatedly while another process logs in. Raises OSError, and any error of ``pause``.
        """
        self._make_directory()
        name = hashlib.sha256(str(gateway).encode()).hexdigest()[:32]
        with (self.directory / f"{name}.lock").open("ab") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    pause()
            yield

    def _make_directory(self) -> None:
        self.directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        if self.directory.stat().st_mode & _OTHERS:
            self.directory.chmod(DIRECTORY_MODE)

    def _file(self, gateway: HostPort, token: SecretStr) -> Path:
        claims = claims_of(token)
        key = "\0".join((str(gateway), claims.issuer, claims.idp_id))
        return self.directory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    def _remove(self, is_meant: Callable[[CachedToken], bool]) -> int:
        count = 0
        for file in self.directory.glob("*.json"):
            if (found := _read(file)) and is_meant(found[1]):
                with suppress(FileNotFoundError):
                    file.unlink()
                    count += 1
        return count


def _read(file: Path) -> tuple[int, CachedToken] | None:
    """Return when a file was written and its token, or None if it is accessible to others or unusable."""
    try:
        found = read_file(file, limit=MAX_FILE_BYTES, follow_links=False)
        if found.mode & _OTHERS or found.owner != os.geteuid():
            return None
        document = json.loads(found.content)
        return found.modified_ns, CachedToken(str(document["gateway"]), check_token(str(document["token"]), str(file)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, CredentialError):
        return None


def _domain(host: str) -> str:
    """Return a host name without its first label if its names have one owner, else an empty string.

    Empty for addresses, single labels and names right below a top-level domain, or below what looks like a country's
    second level, such as ``co.uk``. Being too strict costs one more login.
    """
    _, _, parent = host.partition(".")
    labels = parent.split(".")
    if len(labels) < 2 or parent.replace(".", "").isdigit():
        return ""
    return "" if len(labels) == 2 and len(labels[1]) == 2 and len(labels[0]) <= SECOND_LEVEL_CHARACTERS else parent
