"""Stores tokens of logins on disk, one file for each cluster, identity provider and gateway.

Files have mode 0600 in a directory with mode 0700. The directory is opened once for each operation and its files are
reached through the descriptor, so that another user who can rename it or a parent gains nothing.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import stat
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
IS_LINK = "replace it by a directory of your own; it is a symbolic link or a file"
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
            with self._opened() as directory:
                dated = [found for _, found in _read_all(directory)]
        except OSError:
            return []
        return [cached for _, cached in sorted(dated, key=lambda item: item[0], reverse=True)]

    def store(self, gateway: HostPort, token: SecretStr) -> None:
        """Store a token. It atomically replaces one of the same gateway, cluster and provider. Raises OSError."""
        document = {"gateway": str(gateway), "token": token.get_secret_value()}
        draft = f"{secrets.token_hex(8)}.new"
        with self._made() as directory:
            descriptor = _create(draft, os.O_EXCL, directory)
            try:
                with os.fdopen(descriptor, "w") as file:
                    json.dump(document, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(draft, _file_name(gateway, token), src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(draft, dir_fd=directory)
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
        name = hashlib.sha256(str(gateway).encode()).hexdigest()[:32]
        with self._made() as directory:
            lock = _create(f"{name}.lock", 0, directory)
        with os.fdopen(lock, "wb") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    pause()
            yield

    @contextmanager
    def _made(self) -> Iterator[int]:
        """Create the directory if it is missing, close it to other users, and yield its descriptor. Raises OSError."""
        self.directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        with self._opened() as directory:
            if os.fstat(directory).st_mode & _OTHERS:
                os.fchmod(directory, DIRECTORY_MODE)
            yield directory

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Yield the directory's descriptor. Raises OSError if it is missing, a symbolic link or another user's."""
        try:
            directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except NotADirectoryError as error:
            raise NotADirectoryError(errno.ENOTDIR, IS_LINK, str(self.directory)) from error
        try:
            if os.fstat(directory).st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "the directory belongs to another user", str(self.directory))
            yield directory
        finally:
            os.close(directory)

    def _remove(self, is_meant: Callable[[CachedToken], bool]) -> int:
        count = 0
        with suppress(FileNotFoundError), self._opened() as directory:
            for name, (_, cached) in _read_all(directory):
                if is_meant(cached):
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=directory)
                        count += 1
        return count


def _create(name: str, flags: int, directory: int) -> int:
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600, dir_fd=directory)


def _file_name(gateway: HostPort, token: SecretStr) -> str:
    claims = claims_of(token)
    key = "\0".join((str(gateway), claims.issuer, claims.idp_id))
    return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _read_all(directory: int) -> list[tuple[str, tuple[int, CachedToken]]]:
    """Return the usable files of a directory by name. Raises OSError."""
    names = sorted(name for name in os.listdir(directory) if name.endswith(".json"))
    return [(name, found) for name in names if (found := _read(name, directory))]


def _read(name: str, directory: int) -> tuple[int, CachedToken] | None:
    """Return when a file was written and its token, or None if it is accessible to others or unusable."""
    try:
        found = read_file(Path(name), limit=MAX_FILE_BYTES, follow_links=False, dir_fd=directory)
        if found.mode & _OTHERS or found.owner != os.geteuid():
            return None
        document = json.loads(found.content)
        return found.modified_ns, CachedToken(str(document["gateway"]), check_token(str(document["token"]), name))
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
